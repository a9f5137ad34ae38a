"""Reading everything of a dataset once, and saying what is wrong with it."""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.checks.findings import Findings, Level, Report, note
from datamodules.core.errors import LayoutError, StoreError, UserError
from datamodules.core.progress import OnProgress
from datamodules.core.records import SPLITS, Record, Target, Task, TaskKind
from datamodules.prepare import fingerprint, load
from datamodules.reader import DatasetReader
from datamodules.store.class_balance import class_balance
from datamodules.store.content import ContentDigest
from datamodules.store.parallel import in_order
from datamodules.store.reader import Store
from datamodules.store.tiling import Tiler
from datamodules.store.validation import check_targets

_BLOCK = 64  # patches read at a time
_FLAT = 2  # grey levels; a patch that differs no more holds no tissue
_AGAIN = "delete the store and run `python -m lightning_app datasets prepare`"


def verify(dataset: DatasetReader, workers: int = 0, watch: OnProgress | None = None) -> Report:
    """Read a dataset's raw files and its store from end to end.

    Raw: the layout, every image and target. Store: the content digest, targets in range, empty
    images, groups on two sides of a split, classes that never occur, and that it was made from
    the raw files that lie there now. Memory is bounded by a block of patches. A store without any
    error is noted as verified.

    Args:
        dataset: which one, with its settings.
        workers: processes that read raw files; 0 takes one per core.
        watch: told of every raw record and every block of patches that was read.
    """
    found = Findings()
    records = _raw(dataset, found, workers or os.cpu_count() or 1, watch)
    patches = 0
    if dataset.store_path.exists():
        try:
            patches = _store(dataset, Store(dataset.store_path), found, watch)
        except (StoreError, OSError, KeyError, RuntimeError) as error:
            found.add(Level.ERROR, "store", str(dataset.store_path), f"{error}; {_AGAIN}")
    else:
        what = "not prepared yet; run `python -m lightning_app datasets prepare`"
        found.add(Level.INFO, "store", str(dataset.store_path), what)
    report = Report(dataset.name, found.all(), records, patches)
    if dataset.store_path.exists():
        note(dataset, report.ok)
    return report


def _raw(dataset: DatasetReader, found: Findings, workers: int, watch: OnProgress | None) -> int:
    """Read all raw images; how many."""
    root = dataset.root
    try:
        dataset.check_layout()
        tasks = dataset.tasks_in(root)
    except UserError as error:
        missing = dataset.store_path.exists() and not root.is_dir()
        level = Level.INFO if missing else Level.ERROR
        found.add(level, "layout", str(root), str(error))
        return 0
    work = partial(_try_all, tiler=dataset.tiler(tasks), mpp=dataset.native_mpp())
    count = patches = 0
    before = found.errors()
    results = in_order(work, dataset.records(root), workers)
    try:
        with closing(results):
            for record, (cut, problem) in results:
                count, patches = count + 1, patches + cut
                if problem:
                    found.add(Level.ERROR, "raw image does not fit", record.source, problem)
                if watch:
                    watch("reading the images", 1, cut)
    except UserError as error:
        found.add(Level.ERROR, "reader", str(root), f"reading stops here: {error}")
    if found.errors() == before and dataset.store_path.exists():
        _compare(dataset, patches, found)
    return count


def _try_all(records: list[Record], tiler: Tiler, mpp: float) -> list[tuple[int, str]]:
    """Patches of each record, and what is wrong with it."""
    results = []
    for record in records:
        try:
            results.append((len(load(record, tiler, mpp)), ""))
        except UserError as error:
            results.append((0, str(error)))
    return results


def _compare(dataset: DatasetReader, patches: int, found: Findings) -> None:
    """Whether the store was made from the raw files that lie there now."""
    try:
        store = Store(dataset.store_path)
    except (StoreError, OSError, KeyError):
        return  # said when the store itself is read
    where = str(store.path)
    if store.attributes["fingerprint"] != fingerprint(dataset.root):
        what = f"the files in {dataset.root} changed since it was written; prepare it again"
        found.add(Level.WARNING, "fingerprint", where, what)
    elif patches != len(store):
        what = f"holds {len(store)} patches, the raw files give {patches}; {_AGAIN}"
        found.add(Level.ERROR, "count", where, what)


def _store(dataset: DatasetReader, store: Store, found: Findings, watch: OnProgress | None) -> int:
    """Read the whole store; how many patches."""
    where = str(store.path)
    if store.synthetic:
        found.add(Level.INFO, "synthetic", where, "the tissue is synthetic")
    if not _sound_tables(store):
        found.add(Level.ERROR, "tables", where, f"its tables contradict each other; {_AGAIN}")
        return 0
    digest = ContentDigest(store.tasks)
    for start in range(0, len(store), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(store)))
        _check_block(store, rows, digest, found)
        if watch:
            watch("reading the store", 0, len(rows))
    if digest.hexdigest() != store.digest:
        what = f"its content is not what was written (digest differs); {_AGAIN}"
        found.add(Level.ERROR, "digest", where, what)
    elif not found.errors():
        _check_classes(store, found)
    _check_splits(dataset, store, found)
    return len(store)


def _sound_tables(store: Store) -> bool:
    """Whether lengths and indices fit together, so that rows can be looked at one by one."""
    count = len(store)
    lengths = [len(store.group), *(len(store.target(t.name)) for t in _scalar_tasks(store))]
    sound = all(length == count for length in lengths)
    sound &= bool((store.split < len(SPLITS)).all())
    sound &= bool((store.group >= 0).all() and (store.group < len(store.group_names)).all())
    with h5py.File(store.path, "r") as file:
        source = file["source"][:]
        sound &= len(source) == count and bool((source >= 0).all())
        sound &= int(source.max(initial=0)) < len(file["sources"])
        for node in file["boxes"].values():
            offsets = node["offsets"][:]
            sound &= len(offsets) == count + 1 and bool((np.diff(offsets) >= 0).all())
            sound &= int(offsets[-1]) == len(node["labels"]) == len(node["xyxy"])
    return bool(sound)


def _scalar_tasks(store: Store) -> list[Task]:
    dense = (TaskKind.SEGMENTATION, TaskKind.DETECTION)
    return [task for task in store.tasks if task.kind not in dense]


def _check_block(
    store: Store,
    rows: NDArray[np.int64],
    digest: ContentDigest,
    found: Findings,
) -> None:
    images = store.images(rows)
    masks = {
        task.name: store.masks(task.name, rows)
        for task in store.tasks
        if task.kind is TaskKind.SEGMENTATION
    }
    names = store.sources(rows)
    spread = np.ptp(images.reshape(len(rows), -1, 3), axis=1).max(axis=1)
    for position, (row, name) in enumerate(zip(rows.tolist(), names, strict=True)):
        targets: dict[str, Target] = {}
        for task in store.tasks:
            if task.kind is TaskKind.SEGMENTATION:
                targets[task.name] = masks[task.name][position]
            elif task.kind is TaskKind.DETECTION:
                targets[task.name] = store.boxes(task.name, row)
            else:
                targets[task.name] = store.target(task.name)[row]
        group, split = store.group_name(row), store.split_name(row)
        digest.add(split, group, name, images[position], targets)
        where = f"{name} (row {row})"
        try:
            check_targets(where, targets, store.tasks, (store.side, store.side))
        except LayoutError as error:
            found.add(Level.ERROR, "target out of range", where, f"{error}; {_AGAIN}")
        if spread[position] <= _FLAT:
            colour = images[position, 0, 0].tolist()
            what = f"empty image: all of it is RGB {colour} within {_FLAT} grey levels"
            found.add(Level.WARNING, "empty image", where, what)


def _check_classes(store: Store, found: Findings) -> None:
    for name, counts in class_balance(store).items():
        task = next(task for task in store.tasks if task.name == name)
        for label in task.classes:
            if not counts[label]:
                what = f"class '{label}' of task '{name}' never occurs"
                found.add(Level.WARNING, "class without example", str(store.path), what)


def _check_splits(dataset: DatasetReader, store: Store, found: Findings) -> None:
    """Groups must lie on one side; a published overlap is a warning that the card explains."""
    sides = {split: set(store.group[dataset.rows(split)].tolist()) for split in SPLITS}
    if not sides["train"]:
        found.add(Level.INFO, "split", str(store.path), "no image is left for training")
    level = Level.WARNING if dataset.split_overlap else Level.ERROR
    remedy = dataset.split_overlap or "the split leaks; mend the reader or its options"
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(sides[one] & sides[other])
        if shared:
            names = ", ".join(store.group_names[group] for group in shared[:5])
            more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
            what = (
                f"{len(shared)} groups ({dataset.grouping}) lie in {one} and in {other}: "
                f"{names}{more}; {remedy}"
            )
            found.add(level, "shared group", str(store.path), what)
