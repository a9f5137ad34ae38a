"""Room on a disk, asked for before anything is written to it, and what a disk refuses."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datamodules.core.errors import DiskError

REFUSALS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN),
}
"""Error numbers of a disk that is full, read-only, broken or gone."""


def require_space(path: Path, needed: float, remedy: str = "make room") -> None:
    """Check that a file or folder of a size fits on its disk.

    Args:
        path: where it will be written; need not exist.
        needed: its estimated bytes.
        remedy: what to do about it.

    Raises:
        DiskError: it does not fit.
    """
    free = free_space(path)
    if needed > free:
        raise DiskError(
            f"{path}: needs about {size_text(needed)}, {size_text(free)} are free; {remedy}"
        )


def free_space(path: Path) -> int:
    """Return the free bytes of the disk of a path, which need not exist."""
    return shutil.disk_usage(nearest(path)).free


def nearest(path: Path) -> Path:
    """Return a folder, or its nearest existing parent."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


@contextmanager
def naming(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Let errors of the disk within the block name a file, as most failures of a write do not.

    Args:
        path: the file that they name.
        partial: its temporary path, which they name otherwise.
    """
    try:
        yield
    except OSError as error:
        named = error.filename is not None and str(error.filename) != str(partial)
        if named or error.errno not in REFUSALS:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def line_about(error: OSError) -> str:
    """Return a system's error as one line with a remedy; empty where it is none of the system's."""
    if not (error.strerror or error.filename):
        return ""
    place = f"{error.filename}: " if error.filename else ""
    remedy = "check that the path exists, can be written and that its disk has room"
    return f"{place}{error.strerror or error}; {remedy}"


def size_text(size: float) -> str:
    """A number of bytes in MB or GB.

    >>> size_text(4_100_000), size_text(2_000_000_000)
    ('4.1 MB', '2.0 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
