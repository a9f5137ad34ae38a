"""Ranges of the numbers in a configuration, declared beside each field and checked together."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from datamodules.core.errors import ConfigError

_KEY = "range"

LATER = {"later": True}
"""Metadata of an option that came after stores were written: at its default it is not part of the
settings that name a store."""


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    open_low: bool
    open_high: bool

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        lower = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        upper = f"{'below' if self.open_high else 'at most'} {self.high:g}"
        parts = [t for t, end in ((lower, self.low), (upper, self.high)) if math.isfinite(end)]
        return " and ".join(parts)


def limited(
    default: Any,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    *,
    above: float | None = None,
    below: float | None = None,
    later: bool = False,
) -> Any:
    """Declare a dataclass field whose number must lie in a range; None is exempt.

    Args:
        default: default of the field; a tuple makes a list field, whose members are all checked.
        at_least: closed lower end.
        at_most: closed upper end.
        above: open lower end, in place of the closed one.
        below: open upper end, in place of the closed one.
        later: see `LATER`.
    """
    low, high = at_least if above is None else above, at_most if below is None else below
    metadata: dict[str, Any] = {_KEY: _Range(low, high, above is not None, below is not None)}
    metadata |= LATER if later else {}
    if isinstance(default, tuple):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_limits(config: Any) -> None:
    """Check every limited field of a dataclass and of the dataclasses in it.

    Raises:
        ConfigError: a number is out of range; the message gives its full key.
    """
    for key, value, allowed in _limited_values(config, ""):
        numbers = value if isinstance(value, list) else [value]
        if not all(number in allowed for number in numbers if number is not None):
            raise ConfigError(f"{key}={value}: must be {allowed}")


def _limited_values(config: Any, prefix: str) -> Iterator[tuple[str, Any, _Range]]:
    for one in fields(config):
        key, value = f"{prefix}{one.name}", getattr(config, one.name)
        if _KEY in one.metadata:
            yield key, value, one.metadata[_KEY]
        held = {f".{k}": entry for k, entry in value.items()} if isinstance(value, dict) else None
        for name, entry in (held or {"": value}).items():
            if is_dataclass(entry):
                yield from _limited_values(entry, f"{key}{name}.")
