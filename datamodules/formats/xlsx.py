"""The values of a spreadsheet file (.xlsx), which is a zip of XML files.

Some publishers hand out tables in this form only. Plain tables need no more than this, so the
project does without a spreadsheet library. Format: ECMA-376, part 1, chapter 18.
"""

import io
import lzma
import posixpath
import re
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from datamodules.core import notes
from datamodules.core.errors import LayoutError
from datamodules.formats.cells import shown
from datamodules.formats.text_files import label, read_bytes
from datamodules.formats.xml_files import parse_xml

_SPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_SHEET = "xl/worksheets/sheet1.xml"
_WORKBOOK = "xl/workbook.xml"
_STRINGS = "xl/sharedStrings.xml"
_STYLES = "xl/styles.xml"
_MOST_BYTES = 64 * 2**20  # of one unpacked part; published tables have a few MB
_MOST_COLUMNS, _MOST_ROWS = 16_384, 1_048_576  # of the format
_OLE = b"\xd0\xcf\x11\xe0"
_REFERENCE = re.compile(r"\$?([A-Za-z]{1,3})\$?(\d{1,7})")
_DATES = (*range(14, 23), *range(45, 48))  # built-in number formats of dates and times
_DATE_CODE = re.compile(r"[dmyhs]", re.IGNORECASE)
_LITERAL = re.compile(r'"[^"]*"|\\.|\[[^]]*\]')


def read_xlsx(root: Path, path: Path) -> list[tuple[int, list[str]]]:
    """The rows of the first sheet by number, as texts without surrounding spaces.

    Empty cells are empty texts, except at the end of a row, where they are left out. Formulas give
    the value that was stored with them; further sheets are passed over with a warning. Refused are
    protected files, and cells that hold a date or an error, or lie where none can be.
    """
    where, data = label(root, path), read_bytes(root, path)
    if data.startswith(_OLE):
        problem = "protected by a password, or in the old format .xls"
        raise LayoutError(f"{where}: {problem}; save it as a plain .xlsx file")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            sheet = _part(where, file, _first_sheet(where, file))
            inside = file.namelist()
            shared = _part(where, file, _STRINGS).iter("si") if _STRINGS in inside else ()
            strings = [_text(item) for item in shared]  # to which cells refer by number
            dates = _date_styles(_part(where, file, _STYLES)) if _STYLES in inside else set()
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, KeyError, OSError, ValueError) as error:
        problem = f"not a readable .xlsx file ({shown(error)})"
        raise LayoutError(f"{where}: {problem}; fetch it again") from error
    except (RuntimeError, NotImplementedError, EOFError) as error:
        raise LayoutError(f"{where}: cannot be unpacked ({shown(error)})") from error
    return _Sheet(where, strings, frozenset(dates)).rows(sheet)


def write_xlsx(path: Path, lines: Sequence[Sequence[str | int]]) -> None:
    """Write one sheet of texts and whole numbers."""
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = "".join(
            _cell(f"{_letters(column)}{number}", value) for column, value in enumerate(line)
        )
        rows.append(f'<row r="{number}">{cells}</row>')
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    main = _SPACE
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
        _WORKBOOK: f'{head}<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
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


def _first_sheet(where: str, file: zipfile.ZipFile) -> str:
    """Name of the part with the first sheet of the workbook."""
    if _WORKBOOK not in file.namelist():
        return _SHEET
    sheets = list(_part(where, file, _WORKBOOK).iter("sheet"))
    links = _part(where, file, "xl/_rels/workbook.xml.rels")
    targets = {link.get("Id"): link.get("Target", "") for link in links.iter("Relationship")}
    if len(sheets) > 1:
        notes.warning(where, "only the first sheet of a spreadsheet is read")
    if not sheets or sheets[0].get("id") not in targets:
        raise ValueError("no sheet")
    return posixpath.normpath(posixpath.join("/xl", targets[sheets[0].get("id")])).lstrip("/")


def _part(where: str, file: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if file.getinfo(name).file_size > _MOST_BYTES:
        raise ValueError(f"{name} has {file.getinfo(name).file_size} bytes")
    return parse_xml(f"{where}, {name}", file.read(name))


def _text(node: ElementTree.Element) -> str:
    """The text of a cell; guides to its pronunciation are left out."""
    runs = [node, *node.iterfind("r"), *node.iterfind("is"), *node.iterfind("is/r")]
    return "".join(part.text or "" for run in runs for part in run.iterfind("t"))


def _date_styles(part: ElementTree.Element) -> set[int]:
    """Numbers of the styles that show a number as a date or time."""
    own = {f.get("numFmtId"): f.get("formatCode", "") for f in part.iterfind("numFmts/numFmt")}
    dates = {str(number) for number in _DATES}
    dates |= {key for key, code in own.items() if key and _DATE_CODE.search(_LITERAL.sub("", code))}
    styles = part.iterfind("cellXfs/xf")
    return {place for place, style in enumerate(styles) if style.get("numFmtId") in dates}


@dataclass(frozen=True)
class _Sheet:
    where: str
    strings: Sequence[str]
    dates: frozenset[int]

    def rows(self, sheet: ElementTree.Element) -> list[tuple[int, list[str]]]:
        """Rows by number, in the order of the sheet."""
        rows: list[tuple[int, list[str]]] = []
        for node in sheet.iterfind("sheetData/row"):
            last = rows[-1][0] if rows else 0
            stated = node.get("r", str(last + 1))
            number = int(stated) if stated.isdecimal() else 0
            if not last < number <= _MOST_ROWS:
                raise LayoutError(f"{self.where}: row '{shown(stated)}' is out of order")
            rows.append((number, self._row(number, node)))
        return rows

    def _row(self, number: int, node: ElementTree.Element) -> list[str]:
        cells: dict[int, str] = {}
        for cell in node.iterfind("c"):
            reference = cell.get("r", "") or f"{_letters(max(cells, default=-1) + 1)}{number}"
            match = _REFERENCE.fullmatch(reference)
            column = _column(match[1]) if match else 0
            at = f"{self.where}, cell {shown(reference)}"
            if not match or int(match[2]) != number or not 0 < column <= _MOST_COLUMNS:
                raise LayoutError(f"{at}: lies in row {number}; no such cell can be there")
            if column - 1 in cells:
                raise LayoutError(f"{at}: occurs twice")
            cells[column - 1] = self._value(at, cell).strip()
        return [cells.get(column, "") for column in range(max(cells, default=-1) + 1)]

    def _value(self, at: str, cell: ElementTree.Element) -> str:
        kind, value = cell.get("t", "n"), cell.findtext("v")
        if kind == "inlineStr":
            return _text(cell)
        if value is None or not value.strip():
            if cell.find("f") is not None and kind != "str":
                raise LayoutError(f"{at}: a formula without value; save the values instead")
            return ""
        if kind == "e":
            raise LayoutError(f"{at}: holds the error {shown(value)}")
        if kind == "d" or (kind == "n" and cell.get("s", "0") in map(str, self.dates)):
            raise LayoutError(f"{at}: holds a date; format it as text or number")
        if kind != "s":
            return value
        if not value.isdecimal() or int(value) >= len(self.strings):
            raise LayoutError(f"{at}: refers to the text {shown(value)}, which is not there")
        return self.strings[int(value)]


def _cell(reference: str, value: str | int) -> str:
    if isinstance(value, int):
        return f'<c r="{reference}"><v>{value}</v></c>'
    return f'<c r="{reference}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'


def _column(letters: str) -> int:
    """Number of the column with these letters, from 1."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number


def _letters(column: int) -> str:
    """Letters of the column with this number, from 0."""
    before, last = divmod(column, 26)
    return (_letters(before - 1) if before else "") + chr(ord("A") + last)
