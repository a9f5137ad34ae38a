"""From the publisher's files to a verified store: parallel, bounded in memory, atomic."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock

from datamodules.base import PathologyDataModule
from datamodules.errors import DatasetNotFoundError, StoreError
from datamodules.forge import is_forged
from datamodules.images import read_image
from datamodules.records import Record, Target, Task
from datamodules.store import read_attributes
from datamodules.tiling import Cutter, Patch
from datamodules.validation import check_image, check_record, check_targets
from datamodules.writer import StoreWriter

log = logging.getLogger(__name__)

R = TypeVar("R")
DOWNLOADS = ".downloads"
"""Folder below a dataset's own in which archives are fetched and unpacked."""
_CHUNK = 8  # records per job: enough to hide the cost of handing patches between processes
_PARALLEL_FROM = 64  # fewer records than this are done sooner than processes start


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


def prepare(dataset: PathologyDataModule, workers: int = 0) -> Prepared:
    """Write a dataset's store, unless it is there and its input has not changed.

    Processes that prepare the same store wait for one another, so every rank may call this.

    Args:
        dataset: which one, with its settings.
        workers: processes; 0 takes one per core.

    Raises:
        UserError: the data do not fit; nothing is left behind, an older store is kept.
    """
    path = dataset.store_path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        has_raw = dataset.root.is_dir()
        if path.exists():
            attributes = read_attributes(path)
            if not has_raw or attributes["fingerprint"] == fingerprint(dataset.root):
                return Prepared(path, int(attributes["count"]), written=False)
            log.info("%s: the data in %s changed, preparing again", dataset.name, dataset.root)
        dataset.check_layout()
        count = _write(dataset, path, workers or os.cpu_count() or 1)
    dataset.__dict__.pop("store", None)
    return Prepared(path, count, written=True)


def is_prepared(dataset: PathologyDataModule) -> bool:
    """Whether a store for these settings exists, without looking at the raw data."""
    try:
        read_attributes(dataset.store_path)
    except StoreError:
        return False
    return True


def fingerprint(root: Path) -> str:
    """Digest of names, sizes and times of all files below a folder, downloads left out."""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != DOWNLOADS)
        for name in sorted(files):
            status = (Path(folder) / name).stat()
            entry = f"{Path(folder, name).relative_to(root)}|{status.st_size}|{status.st_mtime_ns}"
            digest.update(entry.encode())
    return digest.hexdigest()


def _write(dataset: PathologyDataModule, path: Path, workers: int) -> int:
    tasks = dataset.tasks_in(dataset.root)
    cutter = dataset.cutter(tasks)
    attributes = {
        "name": dataset.name,
        "title": dataset.title,
        "licence": dataset.licence,
        "settings": json.dumps(dataset.settings(), sort_keys=True),
        "fingerprint": fingerprint(dataset.root),
        "synthetic": is_forged(dataset.root),
    }
    work = partial(_cut_all, cutter=cutter, mpp=dataset.native_mpp())
    count = 0
    with StoreWriter(path, tasks, dataset.side, attributes) as writer:
        for record, patches in in_order(work, dataset.records(dataset.root), workers):
            writer.add(record, patches)
            count += len(patches)
    log.info("%s: %d patches of %d px in %s", dataset.name, count, dataset.side, path)
    return count


def in_order(
    work: Callable[[list[Record]], list[R]], records: Iterator[Record], workers: int
) -> Iterator[tuple[Record, R]]:
    """Results in the order of the records, with a bounded number of jobs under way.

    Args:
        work: picklable; one result for each record of a list.
        records: what to work on.
        workers: processes.
    """
    first = list(islice(records, _PARALLEL_FROM))
    if workers == 1 or len(first) < _PARALLEL_FROM:
        for record in _chain(first, records):
            yield record, work([record])[0]
        return
    chunks = _chunks(_chain(first, records))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        waiting: deque[tuple[list[Record], Future[list[R]]]] = deque()
        for chunk in chunks:
            waiting.append((chunk, pool.submit(work, chunk)))
            if len(waiting) > 2 * workers:
                done, future = waiting.popleft()
                yield from zip(done, future.result(), strict=True)
        for done, future in waiting:
            yield from zip(done, future.result(), strict=True)


def _chain(first: list[Record], rest: Iterator[Record]) -> Iterator[Record]:
    yield from first
    yield from rest


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, _CHUNK)):
        yield chunk


def _cut_all(records: list[Record], cutter: Cutter, mpp: float) -> list[list[Patch]]:
    return [load(record, cutter, mpp) for record in records]


def load(record: Record, cutter: Cutter, mpp: float) -> list[Patch]:
    """Read, check and cut one record.

    Raises:
        UserError: the record does not fit, naming it.
    """
    tasks: tuple[Task, ...] = cutter.tasks
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
    patches = cutter.cut(np.ascontiguousarray(image), targets, record.mpp or mpp)
    return cutter.thinned(patches) if record.split == "train" else patches
