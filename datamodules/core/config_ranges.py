"""Ranges of the numbers in a configuration, declared beside each field and checked together."""

import math
import re
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any

from datamodules.core.errors import ConfigError

_KEY = "range"
_NAME = "name"

NAMES: dict[str, Any] = {_NAME: True}
"""Metadata of a name, or of a mapping by name: they become parts of file names and tables."""

SEED_MAX, COUNT_MAX = 2**32 - 1, 10**6
"""The largest seed of NumPy, and a number that no count of a sensible run reaches."""

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
        return abs(value) < math.inf and above and below

    def __str__(self) -> str:
        lower = f"{'above' if self.open_low else 'at least'} {self.low:.10g}"
        upper = f"{'below' if self.open_high else 'at most'} {self.high:.10g}"
        return f"{lower} and {upper}"


def limited(
    default: Any,
    at_least: float = 0,
    at_most: float = COUNT_MAX,
    *,
    above: float | None = None,
    below: float | None = None,
    later: bool = False,
) -> Any:
    """Declare a dataclass field whose number must be finite and lie in a range; None is exempt.

    Args:
        default: default of the field; a tuple makes a list field, an empty mapping one of numbers
            or lists by name, whose members are all checked.
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
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def range_text(one: Field[Any]) -> str:
    """Return what a field may hold, in words; empty if its type says all."""
    return "a name" if _NAME in one.metadata else str(one.metadata.get(_KEY, ""))


def check_limits(config: Any) -> None:
    """Check every limited field and every name of a dataclass and of the dataclasses in it.

    Raises:
        ConfigError: a number is out of range, or a name does not suit files and tables; the
            message gives the full key.
    """
    for key, value, allowed in _values(config, "", _KEY):
        for number in _numbers(value):
            if number is not None and number not in allowed:
                # Python refuses to write whole numbers of more than 4,300 digits.
                huge = isinstance(number, int) and abs(number) > 10**30
                shown = "a number of more than 30 digits" if huge else value
                raise ConfigError(f"{key}={shown}: must be {allowed}")
    for key, value, _ in _values(config, "", _NAME):
        for name in value if isinstance(value, dict) else [value]:
            check_name(key, name)


def check_name(key: str, name: str) -> None:
    """Check a name that becomes part of file names, tables and lines of text.

    Raises:
        ConfigError: it could leave its folder, or be read as a formula by a spreadsheet.

    >>> check_name("data.train", "colon (2nd scan)")
    >>> check_name("data.train", "../colon")
    Traceback (most recent call last):
    datamodules.core.errors.ConfigError: data.train: '../colon' is no name; \
begin with a letter or digit, and use only those, spaces and any of _ . , + - ( ) @, at most 100
    """
    if not re.fullmatch(r"\w[\w.,+()@ -]{0,99}", name):
        raise ConfigError(
            f"{key}: {name[:120]!r} is no name; begin with a letter or digit, and use only those, "
            "spaces and any of _ . , + - ( ) @, at most 100"
        )


def _numbers(value: Any) -> Iterator[Any]:
    members = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for member in members:
            yield from _numbers(member)
    else:
        yield value


def _values(config: Any, prefix: str, kind: str) -> Iterator[tuple[str, Any, Any]]:
    """The full key, the value and the metadata of all fields that have some of a kind."""
    for one in fields(config):
        key, value = f"{prefix}{one.name}", getattr(config, one.name)
        if kind in one.metadata:
            yield key, value, one.metadata[kind]
        held = {f".{k}": entry for k, entry in value.items()} if isinstance(value, dict) else None
        for name, entry in (held or {"": value}).items():
            if is_dataclass(entry):
                yield from _values(entry, f"{key}{name}.", kind)
