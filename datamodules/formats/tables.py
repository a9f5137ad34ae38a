"""Tables: CSV and .xlsx files with a header, and CSV files of numbers without one.

A row that does not fit, a header that is not as expected, an open quote or a value of the wrong
kind is an error that names file, line and column; nothing gets a default in silence.
"""

import csv
import difflib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.core import notes
from datamodules.core.errors import LayoutError
from datamodules.formats.cells import shown, spelling
from datamodules.formats.row import Row
from datamodules.formats.text_files import label, read_text
from datamodules.formats.xlsx import read_xlsx


def read_table(
    root: Path,
    path: Path,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    delimiter: str = ",",
    own: bool = False,
) -> list[Row]:
    """Rows of a CSV or .xlsx file with a header.

    Names of columns are matched exactly; one that differs in case, spaces or underscores only is
    taken with a warning. Rows without any value are passed over and counted. In a table that is
    not a publisher's but the user's `own`, a column that is not read is a warning.
    """
    where = label(root, path)
    if path.suffix.lower() == ".xlsx":
        lines = read_xlsx(root, path)
    else:
        lines = list(_csv_lines(where, read_text(root, path), delimiter))
    lines = [(line, cells) for line, cells in lines if cells]
    header = lines[0][1] if lines else []
    known = _columns(where, header, columns, optional, own)
    rows: list[Row] = []
    for line, cells in lines[1:]:
        at = f"{where}, line {line}"
        if not any(cells):
            notes.skipped(at, "empty row of a table")
            continue
        values = cells[: len(header)] if not any(cells[len(header) :]) else cells
        if path.suffix.lower() == ".xlsx":  # empty cells at the end of a row are not stored
            values = [*values, *[""] * (len(header) - len(values))]
        if len(values) != len(header):
            raise LayoutError(f"{at}: {len(values)} values, expected {len(header)}")
        rows.append(Row(at, known, values))
    return rows


def has_table(root: Path, path: Path, without: str = "") -> bool:
    """Whether an optional table is there; else what it means to be `without` is noted."""
    if path.is_file():
        return True
    if os.path.lexists(path):
        problem = "is a link to nothing or no file; remove or mend it"
        raise LayoutError(f"{label(root, path)}: {problem}")
    if without:
        notes.warning(label(root, path), without)
    return False


def read_numbers(
    path: Path, columns: Sequence[str], whole_columns: Sequence[str] = ()
) -> NDArray[np.float64]:
    """Numbers of a CSV file without a header, (lines, columns); an empty file holds none."""
    values = [
        [row.whole(c) if c in whole_columns else row.number(c) for c in columns]
        for row in read_rows(path, columns)
    ]
    return np.array(values, np.float64).reshape(-1, len(columns))


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a CSV file without a header, each with one value for each of `columns`."""
    places = {name: place for place, name in enumerate(columns)}
    for line, cells in _csv_lines(str(path), read_text(Path(), path), ","):
        if not any(cells):
            notes.skipped(f"{path.name}, line {line}", "empty row of a table")
            continue
        row = Row(f"{path}, line {line}", places, cells)
        if len(cells) != len(columns):
            text = shown(",".join(cells))
            raise LayoutError(f"{row.where}: '{text}', expected {','.join(columns)}")
        yield row


def _csv_lines(where: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Lines by number, without surrounding spaces in their cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise LayoutError(f"{where}, line {line}: {error}; is a quote left open?") from error
        for cell in cells:
            if "\n" in cell or "\r" in cell:
                problem = "a value goes over several lines; is a quote left open?"
                raise LayoutError(f"{where}, line {line}: {problem}")
            if '"' in cell:
                raise LayoutError(f"{where}, line {line}: a quote inside the value {shown(cell)}")
        yield line, cells


def _columns(
    where: str, header: list[str], columns: Sequence[str], optional: Sequence[str], own: bool
) -> dict[str, int]:
    """Place of each wanted column that is there."""
    plain = [_plain(name) for name in header]
    places = {}
    for name in (*columns, *optional):
        found = [place for place, other in enumerate(plain) if other == _plain(name)]
        if len(found) > 1:
            raise LayoutError(f"{where}: {len(found)} columns are named '{name}'; keep one")
        if not found and name in columns:
            listed = shown(", ".join(header) or "none")
            raise LayoutError(f"{where}: no column '{name}'; found {listed}{_hint(header)}")
        if found:
            places[name] = found[0]
            if header[found[0]] != name:
                notes.warning(f"{where}, column '{header[found[0]]}'", f"read as column '{name}'")
    absent = {_plain(name): name for name in optional if name not in places}
    for place in sorted(set(range(len(header))) - set(places.values())) if own else ():
        column = f"{where}, column '{shown(header[place])}'"
        near = difflib.get_close_matches(plain[place], absent, 1, 0.7)
        if near:
            raise LayoutError(f"{column}: is not read; did you mean '{absent[near[0]]}'?")
        notes.warning(column, "column is not read")
    return places


def _plain(name: str) -> str:
    return spelling(name.replace("_", " ").replace("-", " ")).replace(" ", "")


def _hint(header: list[str]) -> str:
    for sign, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "commas")):
        if any(sign in cell for cell in header):
            return f"; its columns seem to be separated by {name}"
    return ""
