"""What holds for the records of every reader: each image once, each group in one spelling."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from datamodules.core import notes
from datamodules.core.errors import LayoutError
from datamodules.core.records import Record
from datamodules.formats.cells import spelling


def distinct(root: Path, records: Iterator[Record], allow_missing: bool) -> Iterator[Record]:
    """Pass records on, each image once, and bring the groups to one spelling.

    Groups that differ in case, spaces, Unicode form, leading zeros or ".0" only are one patient:
    they get the first spelling, with a warning. With `allow_missing`, images that do not exist
    are passed over and counted.

    Raises:
        LayoutError: two records are the same image, in two spellings of its name or by a link.
    """
    top, folders = os.path.realpath(root), dict[Path, str]()
    seen: set[int] = set()  # hashes: a million names would take much memory
    groups: dict[str, str] = {}
    for record in records:
        if allow_missing and isinstance(record.image, Path) and not record.image.is_file():
            notes.skipped(record.source, "listed image does not exist")
            continue
        keys = {hash(key) for key in _names(record, top, folders)}
        if keys & seen:
            problem = "occurs twice in the dataset, perhaps in another spelling or by a link"
            raise LayoutError(f"{record.source}: {problem}; keep one")
        seen |= keys
        if record.group in ("", record.source):
            yield record
            continue
        first = groups.setdefault(spelling(record.group), record.group)
        if first != record.group:
            notes.warning(f"{record.source}: '{record.group}'", f"group read as '{first}'")
        yield record if first == record.group else replace(record, group=first)


def _names(record: Record, top: str, folders: dict[Path, str]) -> Iterator[str]:
    """Names that no other record may have, by where its image really lies.

    `top` is the dataset's folder without links; `folders` keeps what each folder is in it.
    """
    name, path = unicodedata.normalize("NFC", record.source), record.image
    yield name
    if not isinstance(path, Path):
        return
    if path.is_symlink():
        yield _inside(top, path)
    else:
        if path.parent not in folders:
            folders[path.parent] = _inside(top, path.parent)
        yield (Path(folders[path.parent]) / unicodedata.normalize("NFC", path.name)).as_posix()
    # Names that differ in case are two files where the file system tells them apart.
    if name != name.casefold() and not _tells_case(path):
        yield name.casefold()


def _inside(top: str, path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.relpath(os.path.realpath(path), top))


def _tells_case(path: Path) -> bool:
    other = path.with_name(path.name.swapcase())
    return not (other.exists() and path.exists() and other.samefile(path))
