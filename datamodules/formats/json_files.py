"""JSON files, read strictly; every value knows its place in the file, for messages."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from datamodules.core.errors import LayoutError
from datamodules.formats.cells import in_range, shown, whole
from datamodules.formats.text_files import label, read_text


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a JSON file; where it is not what a method asks for, that is a LayoutError."""

    file: str
    path: str  # place in the file, such as `images[3].width`; empty for the whole
    value: Any

    def __getitem__(self, key: str) -> Node:
        """The value of a key of this object, which must be there."""
        node = self.get(key)
        if node is None:
            raise self.error(f"no '{key}'")
        return node

    def get(self, key: str) -> Node | None:
        """The value of a key of this object; None where it is missing or null."""
        if not isinstance(self.value, dict):
            raise self.error(f"{self._kind()}, expected an object")
        value = self.value.get(key)
        return None if value is None else Node(self.file, f"{self.path}.{key}".lstrip("."), value)

    def items(self) -> Iterator[Node]:
        """The members of this list."""
        if not isinstance(self.value, list):
            raise self.error(f"{self._kind()}, expected a list")
        for place, value in enumerate(self.value):
            yield Node(self.file, f"{self.path}[{place}]", value)

    def text(self) -> str:
        """This text, without surrounding spaces and not empty."""
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.error(f"{self._kind()}, expected a text")
        return self.value.strip()

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """This finite number in a closed range."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            raise self.error(f"{self._kind()}, expected a number")
        try:
            return in_range(float(self.value), low, high)
        except (ValueError, OverflowError) as error:
            raise self.error(str(error)) from error

    def whole(self, low: float = -math.inf, high: float = math.inf) -> int:
        """This whole number in a closed range."""
        try:
            return whole(self.number(low, high))
        except ValueError as error:
            raise self.error(str(error)) from error

    def identity(self) -> int | str:
        """This id, a whole number or a text."""
        return self.text() if isinstance(self.value, str) else self.whole()

    def error(self, problem: str) -> LayoutError:
        """The error to raise for this value."""
        where = f"{self.file}: {shown(self.path)}" if self.path else self.file
        return LayoutError(f"{where}: {problem}")

    def _kind(self) -> str:
        return f"is {shown(self.value)}"


def read_json(root: Path, path: Path) -> Node:
    """The value in a JSON file.

    Refused are NaN, numbers that are not finite, keys that occur twice, and deep nesting.
    """
    where, text = label(root, path), read_text(root, path)
    try:
        value = json.loads(
            text, parse_constant=_refused, parse_float=_finite, object_pairs_hook=_unique
        )
    except RecursionError as error:
        raise LayoutError(f"{where}: is nested too deep for an annotation file") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise LayoutError(f"{where}, {place}: not readable as JSON ({error.msg})") from error
    except ValueError as error:  # includes numbers of too many digits
        raise LayoutError(f"{where}: not readable as JSON ({shown(error)})") from error
    return Node(where, "", value)


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key '{shown(twice)}' stands twice in one object")
    return members
