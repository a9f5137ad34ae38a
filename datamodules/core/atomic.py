"""Atomic files and folders: written under a temporary name, then renamed into place.

A reader sees the old content or the new one, never half of either, and a failed or killed writer
leaves the old one. Every file that another process, a later run or a user may look for is written
through this module.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.core.disk_space import naming

if TYPE_CHECKING:  # slow to import, and most writers write no table
    import pandas as pd


@contextmanager
def atomic_path(path: Path, unique: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place unless the block raises.

    The block creates a file, a folder or a symbolic link there. Everything in it is flushed to the
    disk before it is renamed. An error of the disk names `path`.

    Args:
        path: the final place. An existing file is replaced; an existing folder must be empty.
        unique: give each writer a temporary path of its own. Without it the path is
            `partial_path(path)`, and the next attempt overwrites what a killed one left; choose
            this for large files with one writer at a time.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "scores.csv"
    >>> with atomic_path(path) as partial:
    ...     _ = partial.write_text("name,score")
    >>> path.read_text()
    'name,score'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    if unique:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    _remove(partial)
    try:
        with naming(path, partial):
            yield partial
            publish(partial, path)
    finally:
        with suppress(OSError):  # of a disk that is gone; it would hide the first error
            _remove(partial)


@contextmanager
def atomic_folder(path: Path, unique: bool = True) -> Iterator[Path]:
    """Yield a new, empty folder beside `path`; see `atomic_path`."""
    with atomic_path(path, unique) as partial:
        partial.mkdir()
        yield partial


def partial_path(path: Path) -> Path:
    """Return the temporary path of a writer that resumes, or that no other one runs beside."""
    return path.with_name(f".{path.name}.partial")


def publish(partial: Path, path: Path) -> None:
    """Flush a complete file or folder to the disk and rename it into place."""
    if not partial.is_symlink():
        for folder, _, files in os.walk(partial):
            for name in files:
                _flush(Path(folder, name))
            _flush(Path(folder))
        if partial.is_file():
            _flush(partial)
    partial.replace(path)
    _flush(path.parent)  # the new name itself


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network disks cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV atomically, with all digits."""
    with atomic_path(path) as partial:
        table.to_csv(partial, index=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
