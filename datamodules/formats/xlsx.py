"""The values of a spreadsheet file (.xlsx), which is a zip of XML files.

Some publishers hand out tables in this form only. Plain tables need no more than this, so the
project does without a spreadsheet library. Format: ECMA-376, part 1, chapter 18.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from datamodules.core.errors import DatasetNotFoundError, LayoutError

_SPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_SHEET = "xl/worksheets/sheet1.xml"
_STRINGS = "xl/sharedStrings.xml"
_MOST_BYTES = 256 * 2**20  # of one unpacked part; published tables have a few MB


def read_xlsx(path: Path) -> list[list[str]]:
    """The cells of the first sheet as text, line by line; empty cells are empty strings.

    Raises:
        DatasetNotFoundError: there is no such file.
        LayoutError: it is no spreadsheet file.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: no such file; it is part of the published dataset")
    try:
        with zipfile.ZipFile(path) as file:
            strings = _strings(file) if _STRINGS in file.namelist() else []
            sheet = _part(file, _SHEET)
        return [_line(row, strings) for row in sheet.iter(f"{_SPACE}row")]
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError, ValueError) as error:
        raise LayoutError(f"{path}: not a readable .xlsx file ({error}); fetch it again") from error


def write_xlsx(path: Path, lines: Sequence[Sequence[str | int]]) -> None:
    """Write one sheet of texts and whole numbers."""
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = "".join(
            _cell(f"{_letters(column)}{number}", value) for column, value in enumerate(line)
        )
        rows.append(f'<row r="{number}">{cells}</row>')
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    main = _SPACE.strip("{}")
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = {
        "[Content_Types].xml": f'{head}<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
        f'<Override PartName="/{_SHEET}" ContentType="{kind}.worksheet+xml"/></Types>',
        "_rels/.rels": f'{head}<Relationships xmlns="{package}/relationships"><Relationship '
        f'Id="rId1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'{head}<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'{head}<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="rId1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
        "</Relationships>",
        _SHEET: f'{head}<worksheet xmlns="{main}"><sheetData>{"".join(rows)}</sheetData>'
        "</worksheet>",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in parts.items():
            # A fixed time: the same lines give the same bytes.
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)


def _part(file: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if file.getinfo(name).file_size > _MOST_BYTES:
        raise ValueError(f"{name} has {file.getinfo(name).file_size} bytes")
    return ElementTree.fromstring(file.read(name))


def _strings(file: zipfile.ZipFile) -> list[str]:
    """Texts that cells refer to by number."""
    return [_text(item) for item in _part(file, _STRINGS).iter(f"{_SPACE}si")]


def _text(node: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in node.iter(f"{_SPACE}t"))


def _line(row: ElementTree.Element, strings: list[str]) -> list[str]:
    line: list[str] = []
    for cell in row.iter(f"{_SPACE}c"):
        column = _column(cell.get("r", "")) or len(line) + 1
        line += [""] * (column - 1 - len(line))
        value = cell.find(f"{_SPACE}v")
        text = (value.text or "") if value is not None else _text(cell)
        line.append(strings[int(text)] if cell.get("t") == "s" else text)
    return line


def _cell(reference: str, value: str | int) -> str:
    if isinstance(value, int):
        return f'<c r="{reference}"><v>{value}</v></c>'
    return f'<c r="{reference}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'


def _column(reference: str) -> int:
    """Number of the column in a reference like AB12, from 1; 0 where there is none."""
    number = 0
    for letter in re.sub(r"\d", "", reference):
        number = number * 26 + ord(letter) - ord("A") + 1
    return number


def _letters(column: int) -> str:
    """Letters of the column with this number, from 0."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
