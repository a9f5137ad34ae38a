"""Spreadsheet files as written by libraries and by this project."""

import re
import zipfile

import pytest

from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.notes import collecting
from datamodules.formats.xlsx import read_xlsx, write_xlsx

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def write_shared(path, rows, strings):
    """A sheet with shared strings, as spreadsheet programs write them."""
    items = "".join(f"<si>{item}</si>" for item in strings)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("xl/sharedStrings.xml", f'<sst xmlns="{MAIN}">{items}</sst>')
        file.writestr(
            "xl/worksheets/sheet1.xml",
            f'<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>',
        )


def cells(path):
    return [row for _, row in read_xlsx(path.parent, path)]


def test_what_is_written_is_read_again(tmp_path):
    lines = [["image_name", *(f"c{k}" for k in range(30))], ["a & <b>", *range(30)]]
    write_xlsx(tmp_path / "t.xlsx", lines)
    assert cells(tmp_path / "t.xlsx") == [[str(cell) for cell in line] for line in lines]


def test_shared_and_formatted_strings_and_gaps_are_read(tmp_path):
    rows = (
        '<row r="1"><c r="A1" t="s"><v>1</v></c><c r="C1" t="s"><v>0</v></c></row>'
        '<row r="5"><c r="b5"><v>1.5</v></c><c r="aa5" t="str"><v>x</v></c></row>'
    )
    guide = "<r><t>na</t></r><r><t>me</t></r><rPh><t>read so</t></rPh>"
    write_shared(tmp_path / "t.xlsx", rows, ["<t>G3</t>", guide])
    first, second = read_xlsx(tmp_path, tmp_path / "t.xlsx")
    assert first == (1, ["name", "", "G3"])
    assert second == (5, ["", "1.5", *[""] * 24, "x"])


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ('<c r="A1" t="s"><v>5</v></c>', "cell A1: refers to the text 5"),
        ('<c r="XFE1"><v>5</v></c>', "cell XFE1"),
        ('<c r="A2"><v>5</v></c>', "cell A2: lies in row 1"),
        ('<c r="A1"><v>5</v></c><c r="a1"><v>6</v></c>', "cell a1: occurs twice"),
        ('<c r="A1" t="e"><v>#REF!</v></c>', "cell A1: holds the error #REF!"),
        ('<c r="A1"><f>B1+1</f></c>', "cell A1: a formula without value"),
        ('<c r="A1" t="d"><v>2020-01-01</v></c>', "cell A1: holds a date"),
        ('<c r="A1" s="1"><v>44000</v></c>', "cell A1: holds a date"),
    ],
)
def test_a_cell_that_is_no_plain_value_is_refused_by_its_name(tmp_path, cell, words):
    path = tmp_path / "t.xlsx"
    write_shared(path, f'<row r="1">{cell}</row>', ["<t>a</t>"])
    styles = '<cellXfs><xf numFmtId="0"/><xf numFmtId="164"/></cellXfs>'
    own = '<numFmts><numFmt numFmtId="164" formatCode="[$-407]dd\\.mm\\.yy"/></numFmts>'
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("xl/styles.xml", f'<styleSheet xmlns="{MAIN}">{own}{styles}</styleSheet>')
    with pytest.raises(LayoutError) as caught:
        read_xlsx(tmp_path, path)
    assert words in str(caught.value)


def test_a_stored_value_of_a_formula_and_a_plain_format_are_read(tmp_path):
    path = tmp_path / "t.xlsx"
    write_shared(path, '<row r="1"><c r="A1" s="1"><f>1+1</f><v>2</v></c></row>', [])
    with zipfile.ZipFile(path, "a") as file:
        styles = '<cellXfs><xf numFmtId="0"/><xf numFmtId="2"/></cellXfs>'
        file.writestr("xl/styles.xml", f'<styleSheet xmlns="{MAIN}">{styles}</styleSheet>')
    assert cells(path) == [["2"]]


def test_the_first_sheet_is_that_of_the_workbook(tmp_path):
    path = tmp_path / "t.xlsx"
    write_xlsx(path, [["second"]])
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name).decode() for name in file.namelist()}
    sheet = parts["xl/worksheets/sheet1.xml"]
    parts["xl/worksheets/sheet2.xml"] = sheet.replace("second", "first")
    parts["xl/workbook.xml"] = parts["xl/workbook.xml"].replace(
        "<sheets>", '<sheets><sheet name="A" sheetId="2" r:id="rId2"/>'
    )
    relations = "xl/_rels/workbook.xml.rels"
    parts[relations] = parts[relations].replace(
        "</Rel", '<Relationship Id="rId2" Target="/xl/worksheets/sheet2.xml"/></Rel'
    )
    with zipfile.ZipFile(path, "w") as file:
        for name, text in parts.items():
            file.writestr(name, text)
    with collecting() as notes:
        assert cells(path) == [["first"]]
    assert notes.line() == "1 warnings (only the first sheet of a spreadsheet is read: 1)"


def test_files_that_are_no_spreadsheet_are_refused(tmp_path):
    path = tmp_path / "t.xlsx"
    path.write_text("image_name,NC")
    with pytest.raises(LayoutError, match="not a readable"):
        cells(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello.txt", "hello")
    with pytest.raises(LayoutError, match="sheet1"):
        cells(path)
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(LayoutError, match="password"):
        cells(path)
    write_xlsx(path, [["a"]])
    data = bytearray(path.read_bytes())
    for place in re.finditer(b"PK\x01\x02", bytes(data)):
        data[place.start() + 8] |= 1  # marked as encrypted
    path.write_bytes(data)
    with pytest.raises(LayoutError, match=r"t\.xlsx: cannot be unpacked .*encrypted"):
        cells(path)
    path.unlink()
    with pytest.raises(DatasetNotFoundError, match=r"t\.xlsx"):
        cells(path)
