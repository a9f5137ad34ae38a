"""Text files of datasets: the one place that opens and decodes them."""

import codecs
import re
from pathlib import Path

from datamodules.core.errors import DatasetNotFoundError, LayoutError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the next one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MOST_BYTES = 2**31  # published tables and annotation files stay well below
_MARK = "\ufeff"


def label(root: Path, path: Path) -> str:
    """A file's name for messages: below the dataset's folder where it lies there."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def read_bytes(root: Path, path: Path) -> bytes:
    """The content of a table or annotation file, unless it is too large for one."""
    where = label(root, path)
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: no such file; it is part of the dataset")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise LayoutError(f"{where}: has more than {_MOST_BYTES >> 30} GiB; not a table")
        return path.read_bytes()
    except OSError as error:
        raise LayoutError(f"{where}: cannot be read ({error.strerror})") from error


def read_text(root: Path, path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark."""
    data, where = read_bytes(root, path), label(root, path)
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        place = _place(data[: error.start].decode(encoding, "replace"))
        problem = f"byte 0x{data[error.start]:02X} is not {encoding.upper()}"
        raise LayoutError(f"{where}, {place}: {problem}; save the file as UTF-8") from error
    text = text.removeprefix(_MARK)
    for sign, name in (("\0", "a NUL character"), (_MARK, "a byte order mark inside the text")):
        if sign in text:
            place = _place(text[: text.index(sign)])
            raise LayoutError(f"{where}, {place}: {name}; save the file as UTF-8 text")
    return text


def _place(before: str) -> str:
    lines = re.split(r"\r\n|\r|\n", before.removeprefix(_MARK))
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"
