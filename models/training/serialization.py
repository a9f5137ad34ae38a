"""Settings as plain containers and back, so that a checkpoint holds no class of ours."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


def write(value: Any) -> Any:
    """Turn dataclasses into dictionaries, enums into their values, tuples into lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: write(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [write(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): write(item) for key, item in value.items()}
    return value


def read(kind: type[T], value: T | Mapping[str, Any]) -> T:
    """Build a dataclass from what `write` gave; an instance comes back as it is."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"a {kind.__name__} or a mapping is needed, not {type(value).__name__}")
    hints = typing.get_type_hints(kind)
    return kind(**{str(name): _convert(hints[str(name)], item) for name, item in value.items()})


def _convert(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return value  # only None beside a plain type occurs
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    return tuple(value) if typing.get_origin(hint) is tuple else value
