"""One line of a table, which knows its place for messages."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from datamodules.core.errors import LayoutError
from datamodules.formats.cells import file_name, number, shown, whole

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; a cell that is not what a method asks for is a LayoutError."""

    where: str  # file and line, for messages
    columns: Mapping[str, int]  # place of each column by its name
    cells: Sequence[str]  # without surrounding spaces

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def __getitem__(self, column: str) -> str:
        """The text of a cell, not empty."""
        text = self.cells[self.columns[column]]
        if not text:
            raise self.error(column, "is empty")
        return text

    def text(self, column: str, default: str) -> str:
        """The text of a cell; the default where the table has no such column."""
        return self[column] if column in self.columns else default

    def number(self, column: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number in a closed range."""
        return self._parsed(column, number, self.cells[self.columns[column]], low, high)

    def whole(self, column: str, low: float = -math.inf, high: float = math.inf) -> int:
        """A whole number in a closed range; "7.0" is 7."""
        return self._parsed(column, whole, self.number(column, low, high))

    def file(self, column: str, allow_outside: bool = False) -> str:
        """The name of a file, see `cells.file_name`."""
        return self._parsed(column, file_name, self[column], allow_outside)

    def _parsed(self, column: str, parse: Callable[..., T], *values: object) -> T:
        try:
            return parse(*values)
        except ValueError as error:
            raise self.error(column, str(error)) from error

    def error(self, column: str, problem: str) -> LayoutError:
        """The error to raise for a cell; it names the item, which most tables have first."""
        item = shown(next(filter(None, self.cells), ""))
        return LayoutError(f"{self.where} ({item}), column '{column}': {problem}")
