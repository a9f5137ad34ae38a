"""From the publisher's files to a verified store: parallel, bounded in memory, atomic."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from datamodules.core.cores import available_cores
from datamodules.core.errors import DatasetNotFoundError, ImageError, StoreError
from datamodules.core.notes import Notes, collecting
from datamodules.core.progress import Work
from datamodules.core.records import DOWNLOADS, Record
from datamodules.formats.images import read_image
from datamodules.formats.tree import leads_to_itself
from datamodules.reader import DatasetReader
from datamodules.store.attributes import notes_of, read_attributes
from datamodules.store.parallel import in_order
from datamodules.store.synthetic_mark import is_forged
from datamodules.store.tiling import Patch, Tiler
from datamodules.store.validation import (
    Occurring,
    check_image,
    check_record,
    check_targets,
    note_empty,
)
from datamodules.store.writer import write_store
from datamodules.store_size import require_room

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """The result of `prepare`."""

    path: Path  # of the store
    count: int  # patches in it
    records: int  # images read; 0 if an older store does not state it
    notes: Notes  # what was skipped or odd
    written: bool  # False if it existed and was up to date


def prepare(dataset: DatasetReader, workers: int = 0) -> Prepared:
    """Write a dataset's store, unless it exists and its input has not changed.

    Processes that prepare the same store wait for one another, so every rank may call this.
    Whenever it is interrupted or killed, no partial store is left, and the next call succeeds.
    0 workers mean one per core.

    Raises:
        UserError: the data do not fit; nothing is left behind, an older store is kept.
    """
    path = dataset.store_path
    if ready := _ready(dataset, path):  # without lock: a store may lie in a read-only folder
        return ready
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partial_stores(path.parent)
    with FileLock(lock_of(path)):
        if ready := _ready(dataset, path):
            return ready
        if path.exists():
            log.info("%s: the data in %s changed, preparing again", dataset.name, dataset.root)
        with collecting() as notes:
            dataset.check_layout()
            require_room([dataset])
            _write(dataset, path, workers or available_cores(), notes)
        dataset.__dict__.pop("store", None)
        return _prepared(path, read_attributes(path), written=True)


def _ready(dataset: DatasetReader, path: Path) -> Prepared | None:
    """Return the existing store unless it is missing or its input changed."""
    try:
        attributes = read_attributes(path)
    except StoreError:
        if path.exists():
            raise
        return None
    if dataset.root.is_dir() and attributes.get("fingerprint") != fingerprint(dataset.root):
        return None
    return _prepared(path, attributes, written=False)


def _prepared(path: Path, attributes: Mapping[str, Any], written: bool) -> Prepared:
    records, notes = int(attributes.get("records", 0)), notes_of(attributes)
    return Prepared(path, int(attributes["count"]), records, notes, written)


def lock_of(path: Path) -> Path:
    """The lock file held while the store `path` is written."""
    return path.with_name(f".{path.name}.lock")


def remove_partial_stores(folder: Path) -> None:
    """Remove the partial stores of killed processes: those whose lock is free."""
    for left in folder.glob(".*.h5.partial"):
        store = folder / left.name.removeprefix(".").removesuffix(".partial")
        try:
            with FileLock(lock_of(store), blocking=False):
                left.unlink(missing_ok=True)
        except Timeout:
            continue  # another process is writing it
        log.info("%s: removed, its writing was interrupted", left)


def is_prepared(dataset: DatasetReader) -> bool:
    """Whether a store for these settings exists, without looking at the raw data."""
    try:
        read_attributes(dataset.store_path)
    except StoreError:
        return False
    return True


def fingerprint(root: Path) -> str:
    """Digest of names, sizes and times of all files below a folder, except downloads."""
    digest = hashlib.sha256()
    for entry in _entries(str(root), ""):
        digest.update(os.fsencode(entry))  # names need not be UTF-8 where no reader looks
    return digest.hexdigest()


def _entries(folder: str, inside: str) -> Iterator[str]:
    """One text per file, in a fixed order; no `Path` is made for each of half a million files."""
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        loop = entry.is_symlink() and leads_to_itself(path)
        if path.is_dir() and not loop:  # entry.is_dir() fails for loops
            if entry.name != DOWNLOADS:
                yield from _entries(entry.path, f"{inside}{entry.name}/")
        else:
            broken = entry.is_symlink() and not path.exists()
            status = entry.stat(follow_symlinks=not broken)
            yield f"{inside}{entry.name}|{status.st_size}|{status.st_mtime_ns}\n"


def _write(dataset: DatasetReader, path: Path, workers: int, notes: Notes) -> None:
    tasks = dataset.tasks_in(dataset.root)
    attributes: dict[str, Any] = {
        "records": 0,
        "name": dataset.name,
        "title": dataset.title,
        "licence": dataset.licence,
        "settings": json.dumps(dataset.settings(), sort_keys=True),
        "fingerprint": fingerprint(dataset.root),
        "synthetic": is_forged(dataset.root),
    }
    work = partial(load_all, tiler=dataset.tiler(tasks), mpp=dataset.native_mpp())
    results = in_order(work, dataset.read(), workers)
    store = write_store(path, tasks, dataset.side, attributes, dataset.compressed)
    occurring = Occurring(tasks)
    name = f"preparing {dataset.name}"
    with store as writer, closing(results), Work(name, "patches") as progress:
        for record, (patches, noted) in results:
            writer.add(record, patches)
            notes.merge(noted)
            occurring.add(patches)
            attributes["records"] = int(attributes["records"]) + 1
            progress.advance(len(patches))
        occurring.note_absent(dataset.name)
        attributes["notes"] = notes.to_json()
    log.info("%s: %d patches of %d px in %s", dataset.name, len(writer), dataset.side, path)


def load_all(records: list[Record], tiler: Tiler, mpp: float) -> list[tuple[list[Patch], Notes]]:
    """Load records, each with what was noted meanwhile; a process of its own may do it."""
    loaded = []
    for record in records:
        with collecting() as notes:
            loaded.append((load(record, tiler, mpp), notes))
    return loaded


def load(record: Record, tiler: Tiler, mpp: float) -> list[Patch]:
    """Read, check and cut one record; what does not fit is a UserError that names it."""
    check_record(record, tiler.tasks)
    try:
        image = read_image(record.image) if isinstance(record.image, Path) else record.image()
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(
            f"{record.source}: is annotated, but its image is missing ({error}); "
            "options.allow_missing=true goes without"
        ) from error
    check_image(record, image)
    lazy = {task.name: record.targets[task.name] for task in tiler.tasks}
    targets = {name: target() if callable(target) else target for name, target in lazy.items()}
    check_targets(record.source, targets, tiler.tasks, (image.shape[0], image.shape[1]))
    note_empty(record.source, targets, tiler.tasks)
    try:
        patches = tiler.cut(np.ascontiguousarray(image), targets, record.mpp or mpp)
    except ImageError as error:
        raise ImageError(f"{record.source}: {error}") from error
    return tiler.thinned(patches) if record.split == "train" else patches
