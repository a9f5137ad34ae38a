"""One line of a table, which knows its place for messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datamodules.core.errors import LayoutError
from datamodules.formats.cells import file_name, number, shown, whole


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Attributes:
        where: file and line, for messages.
        columns: place of each column by its name.
        cells: without surrounding spaces.
    """

    where: str
    columns: Mapping[str, int]
    cells: Sequence[str]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def __getitem__(self, column: str) -> str:
        """The text of a cell.

        Raises:
            LayoutError: it is empty.
        """
        text = self.cells[self.columns[column]]
        if not text:
            raise self.error(column, "is empty")
        return text

    def text(self, column: str, default: str) -> str:
        """The text of a cell; the default where the table has no such column."""
        return self[column] if column in self.columns else default

    def number(self, column: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number in a closed range.

        Raises:
            LayoutError: it is none.
        """
        try:
            return number(self.cells[self.columns[column]], low, high)
        except ValueError as error:
            raise self.error(column, str(error)) from error

    def whole(self, column: str, low: float = -math.inf, high: float = math.inf) -> int:
        """A whole number in a closed range; "7.0" is 7.

        Raises:
            LayoutError: it is none.
        """
        value = self.number(column, low, high)
        try:
            return whole(value)
        except ValueError as error:
            raise self.error(column, str(error)) from error

    def file(self, column: str, allow_outside: bool = False) -> str:
        """The name of a file, see `cells.file_name`.

        Raises:
            LayoutError: it is none, or leaves the folder.
        """
        try:
            return file_name(self[column], allow_outside)
        except ValueError as error:
            raise self.error(column, str(error)) from error

    def error(self, column: str, problem: str) -> LayoutError:
        """The error to raise for a cell; it names the item, which most tables have first."""
        item = shown(next(filter(None, self.cells), ""))
        return LayoutError(f"{self.where} ({item}), column '{column}': {problem}")
