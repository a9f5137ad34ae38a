"""Spreadsheet files as written by libraries and by this project."""

import zipfile

import pytest

from datamodules.core.errors import DatasetNotFoundError, LayoutError
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


def test_what_is_written_is_read_again(tmp_path):
    lines = [["image_name", *(f"c{k}" for k in range(30))], ["a & <b>", *range(30)]]
    write_xlsx(tmp_path / "t.xlsx", lines)
    assert read_xlsx(tmp_path / "t.xlsx") == [[str(cell) for cell in line] for line in lines]


def test_shared_and_formatted_strings_and_gaps_are_read(tmp_path):
    rows = (
        '<row r="1"><c r="A1" t="s"><v>1</v></c><c r="C1" t="s"><v>0</v></c></row>'
        '<row r="2"><c r="B2"><v>1.5</v></c><c r="AA2" t="str"><v>x</v></c></row>'
    )
    write_shared(tmp_path / "t.xlsx", rows, ["<t>G3</t>", "<r><t>na</t></r><r><t>me</t></r>"])
    first, second = read_xlsx(tmp_path / "t.xlsx")
    assert first == ["name", "", "G3"]
    assert second == ["", "1.5", *[""] * 24, "x"]


def test_a_missing_string_and_a_file_that_is_not_a_zip_are_refused(tmp_path):
    path = tmp_path / "t.xlsx"
    write_shared(path, '<row r="1"><c r="A1" t="s"><v>5</v></c></row>', ["<t>a</t>"])
    with pytest.raises(LayoutError, match=r"t\.xlsx"):
        read_xlsx(path)
    path.write_text("image_name,NC")
    with pytest.raises(LayoutError, match="not a readable"):
        read_xlsx(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello.txt", "hello")
    with pytest.raises(LayoutError, match="sheet1"):
        read_xlsx(path)
    path.unlink()
    with pytest.raises(DatasetNotFoundError, match=r"t\.xlsx"):
        read_xlsx(path)
