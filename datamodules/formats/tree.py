"""Links below a dataset's folder: they stay inside unless asked, and never lead in a circle."""

import os
from collections.abc import Iterator
from pathlib import Path

from datamodules.core.errors import LayoutError
from datamodules.core.records import DOWNLOADS


def check_links(root: Path, follow: bool) -> None:
    """Look at all links below a dataset's folder, which may be a link itself; no file is opened.

    Refused are links to a folder that holds them and, without `follow`, links out of the dataset's.
    """
    top = os.path.realpath(root)
    for link in _links(str(root)):
        target = Path(os.path.realpath(link))
        inside = link.relative_to(root).as_posix().encode(errors="backslashreplace").decode()
        if target.is_dir() and leads_to_itself(link):
            raise LayoutError(f"{inside}: links to a folder that holds it; remove the link")
        if target.exists() and not follow and not target.is_relative_to(top):
            remedy = "copy the file, or set follow_links=true for the dataset"
            raise LayoutError(f"{inside}: links out of the dataset's folder; {remedy}")


def leads_to_itself(link: Path) -> bool:
    """Whether a link to a folder points to one that holds the link."""
    return link.parent.resolve().is_relative_to(os.path.realpath(link))


def _links(folder: str) -> Iterator[Path]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise LayoutError(f"{folder}: cannot be read ({error.strerror})") from error
    for entry in entries:
        if entry.is_symlink():
            yield Path(entry.path)
        elif entry.name != DOWNLOADS and entry.is_dir(follow_symlinks=False):
            yield from _links(entry.path)
