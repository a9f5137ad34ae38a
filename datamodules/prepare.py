"""From the publisher's files to a verified store: parallel, bounded in memory, atomic."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from datamodules.core.errors import DatasetNotFoundError, StoreError
from datamodules.core.progress import OnProgress
from datamodules.core.records import DOWNLOADS, Record, Target, Task
from datamodules.formats.images import read_image
from datamodules.reader import DatasetReader
from datamodules.store.parallel import in_order
from datamodules.store.reader import read_attributes
from datamodules.store.synthetic_mark import is_forged
from datamodules.store.tiling import Tiler, Patch
from datamodules.store.validation import check_image, check_record, check_targets
from datamodules.store.writer import StoreWriter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    Attributes:
        path: the store.
        count: patches in it.
        written: False when it was there already and up to date.
    """

    path: Path
    count: int
    written: bool


def prepare(dataset: DatasetReader, workers: int = 0, watch: OnProgress | None = None) -> Prepared:
    """Write a dataset's store, unless it is there and its input has not changed.

    Processes that prepare the same store wait for one another, so every rank may call this.
    Whenever it is interrupted or killed, no half store is left, and the next call succeeds.

    Args:
        dataset: which one, with its settings.
        workers: processes; 0 takes one per core.
        watch: told of every record that was written.

    Raises:
        UserError: the data do not fit; nothing is left behind, an older store is kept.
    """
    path = dataset.store_path
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    with FileLock(lock_of(path)):
        has_raw = dataset.root.is_dir()
        if path.exists():
            attributes = read_attributes(path)
            if not has_raw or attributes["fingerprint"] == fingerprint(dataset.root):
                return Prepared(path, int(attributes["count"]), written=False)
            log.info("%s: the data in %s changed, preparing again", dataset.name, dataset.root)
        dataset.check_layout()
        count = _write(dataset, path, workers or os.cpu_count() or 1, watch)
    dataset.__dict__.pop("store", None)
    return Prepared(path, count, written=True)


def lock_of(path: Path) -> Path:
    """The lock that whoever writes the store `path` holds."""
    return path.with_name(f".{path.name}.lock")


def sweep(folder: Path) -> None:
    """Remove what killed processes left: partial stores whose writer no longer holds the lock."""
    for left in folder.glob(".*.h5.partial"):
        store = folder / left.name.removeprefix(".").removesuffix(".partial")
        try:
            with FileLock(lock_of(store), blocking=False):
                left.unlink(missing_ok=True)
        except Timeout:
            continue  # somebody is at work
        log.info("%s: removed, its writing was interrupted", left)


def is_prepared(dataset: DatasetReader) -> bool:
    """Whether a store for these settings exists, without looking at the raw data."""
    try:
        read_attributes(dataset.store_path)
    except StoreError:
        return False
    return True


def fingerprint(root: Path) -> str:
    """Digest of names, sizes and times of all files below a folder, downloads left out."""
    digest = hashlib.sha256()
    for entry in _entries(str(root), ""):
        digest.update(entry.encode())
    return digest.hexdigest()


def _entries(folder: str, inside: str) -> Iterator[str]:
    """One text for each file, in a fixed order; without a `Path` for each of half a million."""
    with os.scandir(folder) as found:
        listed = sorted(found, key=lambda entry: entry.name)
    for entry in listed:
        if entry.is_dir():
            if entry.name != DOWNLOADS:
                yield from _entries(entry.path, f"{inside}{entry.name}/")
        else:
            broken = entry.is_symlink() and not Path(entry.path).exists()
            status = entry.stat(follow_symlinks=not broken)
            yield f"{inside}{entry.name}|{status.st_size}|{status.st_mtime_ns}\n"


def _write(dataset: DatasetReader, path: Path, workers: int, watch: OnProgress | None) -> int:
    tasks = dataset.tasks_in(dataset.root)
    tiler = dataset.tiler(tasks)
    attributes = {
        "name": dataset.name,
        "title": dataset.title,
        "licence": dataset.licence,
        "settings": json.dumps(dataset.settings(), sort_keys=True),
        "fingerprint": fingerprint(dataset.root),
        "synthetic": is_forged(dataset.root),
    }
    work = partial(_cut_all, tiler=tiler, mpp=dataset.native_mpp())
    count = 0
    results = in_order(work, dataset.records(dataset.root), workers)
    compressed = dataset.compressed
    with StoreWriter(path, tasks, dataset.side, attributes, compressed) as writer, closing(results):
        for record, patches in results:
            writer.add(record, patches)
            count += len(patches)
            if watch:
                watch("writing", 1, len(patches))
    log.info("%s: %d patches of %d px in %s", dataset.name, count, dataset.side, path)
    return count


def _cut_all(records: list[Record], tiler: Tiler, mpp: float) -> list[list[Patch]]:
    return [load(record, tiler, mpp) for record in records]


def load(record: Record, tiler: Tiler, mpp: float) -> list[Patch]:
    """Read, check and cut one record.

    Raises:
        UserError: the record does not fit, naming it.
    """
    tasks: tuple[Task, ...] = tiler.tasks
    check_record(record, tasks)
    try:
        image = read_image(record.image) if isinstance(record.image, Path) else record.image()
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(
            f"{record.source}: is annotated, but its image is missing ({error})"
        ) from error
    check_image(record.source, image)
    targets: dict[str, Target] = {}
    for task in tasks:
        target = record.targets[task.name]
        targets[task.name] = target() if callable(target) else target
    check_targets(record.source, targets, tasks, (image.shape[0], image.shape[1]))
    patches = tiler.cut(np.ascontiguousarray(image), targets, record.mpp or mpp)
    return tiler.thinned(patches) if record.split == "train" else patches
