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
    places = _Places(os.path.realpath(root))
    seen: set[int] = set()  # hashes: a million names would take much memory
    groups: dict[str, str] = {}
    for record in records:
        if allow_missing and isinstance(record.image, Path) and not record.image.is_file():
            notes.skipped(record.source, "listed image does not exist")
            continue
        keys = {hash(key) for key in places.names(record)}
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


class _Places:
    """Where images really lie below the dataset's folder `top`, itself without links."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._real: dict[Path, str] = {}

    def names(self, record: Record) -> Iterator[str]:
        """Names that no other record may have."""
        name = unicodedata.normalize("NFC", record.source)
        yield name
        path = record.image
        if not isinstance(path, Path):
            return
        if path.is_symlink():
            yield self._inside(os.path.realpath(path))
        else:
            folder = self._real.get(path.parent)
            if folder is None:
                folder = self._real[path.parent] = self._inside(os.path.realpath(path.parent))
            yield (Path(folder) / unicodedata.normalize("NFC", path.name)).as_posix()
        # Names that differ in case are two files where the file system tells them apart.
        if name != name.casefold() and not _tells_case(path):
            yield name.casefold()

    def _inside(self, real: str) -> str:
        return unicodedata.normalize("NFC", os.path.relpath(real, self._top))


def _tells_case(path: Path) -> bool:
    other = path.with_name(path.name.swapcase())
    return not (other.exists() and path.exists() and other.samefile(path))
