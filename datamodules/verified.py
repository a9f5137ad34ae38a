"""The note beside a store that says that it was read from end to end and found sound."""

from __future__ import annotations

import json
from pathlib import Path

from datamodules.base import PathologyDataModule
from datamodules.errors import StoreError
from datamodules.store import read_attributes


def note_of(path: Path) -> Path:
    """Where the note of the store `path` lies."""
    return path.with_suffix(".verified.json")


def note(dataset: PathologyDataModule, sound: bool) -> None:
    """Note that a dataset was verified; where it was not sound, an older note goes.

    Raises:
        StoreError: the note cannot be written.
    """
    path = note_of(dataset.store_path)
    try:
        if sound:
            path.write_text(json.dumps(_state(dataset.store_path)))
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error}); make its folder writable"
        ) from error


def is_verified(dataset: PathologyDataModule) -> bool:
    """Whether the store was found sound and is the same file since; it is not read for that."""
    path = dataset.store_path
    try:
        return bool(json.loads(note_of(path).read_text()) == _state(path))
    except (OSError, ValueError, StoreError):
        return False


def _state(path: Path) -> dict[str, str | int]:
    """What changes when a store is written anew or changed in place."""
    status = path.stat()
    digest = str(read_attributes(path)["digest"])
    return {"digest": digest, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
