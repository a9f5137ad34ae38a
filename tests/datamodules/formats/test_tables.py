"""Tables and text files: what is read, what is refused, and how the place is named."""

import numpy as np
import pytest

from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.notes import collecting
from datamodules.formats.cells import file_name, number, spelling
from datamodules.formats.tables import read_numbers, read_table

TABLE = "image,target\na.png,0.5\nb.png,1\n"


def table(folder, content, *columns, **options):
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(folder, path, columns or ("image", "target"), **options)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_unicode_tables_are_read_whatever_their_encoding_and_line_ends(tmp_path, encoding, end):
    text = 'image,target\n"gewebe-ä,1.png", 0.5 \nb.png,1\n'.replace("\n", end)
    rows = table(tmp_path, text.encode(encoding))
    assert [(r["image"], r.number("target")) for r in rows] == [
        ("gewebe-ä,1.png", 0.5),
        ("b.png", 1),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("image,target\na.png,1\nä.png,2\n".encode("latin-1"), "line 3, column 1: byte 0xE4"),
        (TABLE.encode("utf-16-le"), "line 1, column 2: a NUL"),
        (TABLE.encode("utf-16")[:-1], "UTF-16"),
        (f"{TABLE}\ufeff{TABLE}", "line 4, column 1: a byte order mark inside"),
        ('image,target\na.png,1\n"b.png,2\nc.png,3\n', "line 3: "),
        ('image,target\na.png,"x\nb.png,"\n', "line 2: "),
        ('image,target\na.png, "x"\n', "line 2: a quote inside"),
        ("image,target\na.png,1\nb.png\n", "line 3: 1 values, expected 2"),
        ("image,target\na.png,1,5\n", "line 2: 3 values, expected 2"),
        (f"image,target\na.png,{'9' * 140_000}\n", "line 2: field larger"),
        ("image;target\na.png;1\n", "no column 'image'; found image;target; its columns seem to "),
        ("image,target,Target\na.png,1,2\n", "2 columns are named 'target'"),
        ("image,label\na.png,1\n", "no column 'target'; found image, label"),
        ("", "no column 'image'; found none"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_line_and_column(tmp_path, content, words):
    with pytest.raises(LayoutError) as caught:
        table(tmp_path, content)
    assert f"table.csv{'' if words.startswith(('no ', '2 ', 'UTF')) else ', '}" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("0,252", "has a comma"),
        ("1,234.5", "has a comma"),
        ("nan", "is not a number"),
        ("inf", "is not a number"),
        ("1e999", "is not finite"),
        ("1_000", "is not a number"),
        ("٣", "is not a number"),
        ("", "is not a number"),
        ("1.7", "1.7 is not a whole number"),
        ("4", "4 is out of range, expected 0 to 3"),
        ("1e300", "out of range"),
    ],
)
def test_a_cell_that_is_no_whole_number_in_range_is_named(tmp_path, cell, words):
    (row,) = table(tmp_path, f'image,target\na.png,"{cell}"\n')
    with pytest.raises(LayoutError) as caught:
        row.whole("target", 0, 3)
    assert "table.csv, line 2 (a.png), column 'target': " in str(caught.value)
    assert words in str(caught.value)


def test_headers_in_another_spelling_are_read_with_a_warning(tmp_path):
    with collecting() as notes:
        rows = table(tmp_path, " Image ,TARGET,Group\na.png,1,p\n", optional=("group",))
    assert (rows[0]["image"], rows[0]["target"], rows[0]["group"]) == ("a.png", "1", "p")
    assert notes.total("warning") == 3


def test_unread_columns_of_own_tables_are_counted_and_near_misses_refused(tmp_path):
    with collecting() as notes:
        table(tmp_path, "image,target,age\na.png,1,70\n", optional=("split",), own=True)
    assert notes.counts == {("warning", "column is not read"): 1}
    with pytest.raises(LayoutError, match="did you mean 'split'"):
        table(tmp_path, "image,target,spilt\na.png,1,test\n", optional=("split",), own=True)


def test_rows_without_values_are_counted(tmp_path):
    with collecting() as notes:
        rows = table(tmp_path, "image,target\n,\na.png,1,\n\n")
    assert [row["image"] for row in rows] == ["a.png"]
    assert notes.counts == {("skipped", "empty row of a table"): 1}


def test_numbers_without_header_are_read_strictly(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("1,2.5,1\n-3,4e1,2\n")
    expected = [[1, 2.5, 1], [-3, 40, 2]]
    np.testing.assert_array_equal(read_numbers(path, ("x", "y", "label"), ("label",)), expected)
    for text, words in (
        ("1,2,1.7\n", r"line 1 \(1\), column 'label': 1.7 is not a whole"),
        ("1,2,1\n1,nan,1\n", r"line 2 \(1\), column 'y': 'nan'"),
        ("1;2;1\n", "line 1: '1;2;1', expected x,y,label"),
        ("x,y,label\n", "line 1"),
    ):
        path.write_text(text)
        with pytest.raises(LayoutError, match=words):
            read_numbers(path, ("x", "y", "label"), ("label",))
    path.write_text("")
    assert read_numbers(path, ("x", "y")).shape == (0, 2)
    with pytest.raises(DatasetNotFoundError, match=r"none\.csv"):
        read_numbers(tmp_path / "none.csv", ("x",))


@pytest.mark.parametrize("text", ["", ".", "/etc/passwd", "../a.png", "a/../../b", "C:\\a.png"])
def test_names_that_leave_the_folder_are_refused(text):
    with pytest.raises(ValueError, match=r"folder|name"):
        file_name(text)


def test_names_outside_are_read_where_asked_and_slashes_made_alike():
    assert file_name("../x/a.png", allow_outside=True) == "../x/a.png"
    assert file_name("/data/a.png", allow_outside=True) == "/data/a.png"
    assert file_name(".\\b//c/./d.png") == "b/c/d.png"


def test_spellings_of_one_name_have_one_key():
    assert len({spelling(t) for t in ("P7", "P 7", " p7", "p7 ", "\u200bp7", "\uff307")}) == 1
    assert len({spelling(t) for t in ("7", "7.0", "007", "7.")}) == 1
    assert spelling("a\u0308") == spelling("ä")
    assert len({spelling(t) for t in ("7", "7.5", "70", "p7", "p 7 1", "p71")}) == 6
    assert number("7.0") == 7
