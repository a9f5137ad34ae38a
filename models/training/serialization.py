"""Checkpoints, and settings as plain containers, so that they hold no class of this project."""

import dataclasses
import math
import struct
import types
import typing
import zlib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar
from zipfile import BadZipFile, ZipFile

import torch

from datamodules.core.errors import TrainingError, UserError

_DAMAGE = (
    *(OSError, RuntimeError, ValueError, EOFError, LookupError, BadZipFile, UnpicklingError),
    *(TypeError, AttributeError, ArithmeticError, AssertionError, ImportError, MemoryError),
    *(struct.error, zlib.error),
)
"""What zipfile and torch's reader of pickles raise for files that hold something else."""

FOREIGN = (UserError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)
"""What building a module raises from the content of another program's checkpoint."""

T = TypeVar("T")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint after comparing all of its bytes with its checksums.

    Raises:
        TrainingError: it does not exist or is damaged.
    """
    try:
        check_sums(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    except _DAMAGE as error:
        problem = " ".join(str(error).split())[:160] or type(error).__name__
        raise TrainingError(f"{path}: cannot be read ({problem})") from error


def check_sums(path: Path) -> None:
    """Compare all bytes of a checkpoint with its checksums; torch itself does not.

    Raises:
        BadZipFile: they differ, or it is no checkpoint.
    """
    with ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise BadZipFile(f"the checksum of {damaged} is wrong")


def to_dict(settings: Any) -> dict[str, Any]:
    """Turn a dataclass into a dictionary, with enums as their values and tuples as lists."""
    return dataclasses.asdict(
        settings, dict_factory=lambda items: {name: _plain(value) for name, value in items}
    )


def from_dict(kind: type[T], value: T | Mapping[str, Any]) -> T:
    """Build a dataclass from the result of `to_dict`; return an instance unchanged."""
    if isinstance(value, kind):
        return value
    hints, items = typing.get_type_hints(kind), typing.cast(Mapping[str, Any], value).items()
    return kind(**{name: _convert(hints[name], item) for name, item in items})


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def _convert(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return value  # only None beside a plain type occurs
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_dict(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if typing.get_origin(hint) is tuple:
        return tuple(_convert(typing.get_args(hint)[0], part) for part in value)
    return math.inf if value is None and hint is float else value  # JSON has no infinity
