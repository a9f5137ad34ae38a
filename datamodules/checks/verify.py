"""Verification of a dataset: read all raw files and the whole store, and report problems."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from itertools import combinations

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.checks.findings import Level, Report, write_stamp
from datamodules.core.errors import LayoutError, StoreError, UserError
from datamodules.core.progress import OnProgress
from datamodules.core.records import SPLITS, Record, Target, TaskKind
from datamodules.prepare import fingerprint, load
from datamodules.reader import DatasetReader
from datamodules.store.class_balance import class_balance
from datamodules.store.content import ContentDigest
from datamodules.store.parallel import in_order
from datamodules.store.reader import Store
from datamodules.store.tiling import Tiler
from datamodules.store.validation import check_targets

_BLOCK = 64  # patches read at a time
_FLAT = 2  # grey levels; a patch with a smaller range holds no tissue
_PREPARE = "run `python -m lightning_app datasets prepare`"
_REWRITE = f"delete the store and {_PREPARE}"


def verify(dataset: DatasetReader, workers: int = 0, progress: OnProgress | None = None) -> Report:
    """Read a dataset's raw files and its store from end to end.

    Raw files: the layout, every image and every target. Store: content digest, range of targets,
    empty images, groups shared between splits, classes without examples, and whether it was made
    from the present raw files. Memory is bounded by a block of patches. A store without errors is
    stamped as verified.

    Args:
        dataset: the dataset with its settings.
        workers: processes that read raw files; 0 uses one per core.
        progress: called for every raw record and every block of patches.
    """
    report = Report(dataset.name)
    path = dataset.store_path
    cut = _verify_raw(dataset, report, workers or os.cpu_count() or 1, progress)
    if path.exists():
        try:
            store = Store(path)
            if cut is not None:
                _compare_with_raw(dataset, store, cut, report)
            _verify_store(dataset, store, report, progress)
        except (StoreError, OSError, KeyError, RuntimeError) as error:
            report.add(Level.ERROR, "store", path, f"{error}; {_REWRITE}")
        write_stamp(dataset, report.ok)
    else:
        report.add(Level.INFO, "store", path, f"not prepared yet; {_PREPARE}")
    return report


def _verify_raw(
    dataset: DatasetReader, report: Report, workers: int, progress: OnProgress | None
) -> int | None:
    """Read all raw images; return the number of their patches, None after an error."""
    root = dataset.root
    try:
        dataset.check_layout()
        tasks = dataset.tasks_in(root)
    except UserError as error:
        store_only = dataset.store_path.exists() and not root.is_dir()
        report.add(Level.INFO if store_only else Level.ERROR, "layout", root, str(error))
        return None
    work = partial(_load_all, tiler=dataset.tiler(tasks), mpp=dataset.native_mpp())
    patches = 0
    results = in_order(work, dataset.records(root), workers)
    try:
        with closing(results):
            for record, (cut, problem) in results:
                report.records, patches = report.records + 1, patches + cut
                if problem:
                    report.add(Level.ERROR, "raw image does not fit", record.source, problem)
                if progress:
                    progress("reading the images", 1, cut)
    except UserError as error:
        report.add(Level.ERROR, "reader", root, f"reading stops here: {error}")
    return patches if report.ok else None


def _load_all(records: list[Record], tiler: Tiler, mpp: float) -> list[tuple[int, str]]:
    """Return the number of patches of each record, and its problem."""
    results = []
    for record in records:
        try:
            results.append((len(load(record, tiler, mpp)), ""))
        except UserError as error:
            results.append((0, str(error)))
    return results


def _compare_with_raw(dataset: DatasetReader, store: Store, patches: int, report: Report) -> None:
    """Check that the store was made from the present raw files."""
    if store.attributes["fingerprint"] != fingerprint(dataset.root):
        what = f"the files in {dataset.root} changed since it was written; prepare it again"
        report.add(Level.WARNING, "fingerprint", store.path, what)
    elif patches != len(store):
        what = f"holds {len(store)} patches, the raw files give {patches}; {_REWRITE}"
        report.add(Level.ERROR, "count", store.path, what)


def _verify_store(
    dataset: DatasetReader, store: Store, report: Report, progress: OnProgress | None
) -> None:
    path = store.path
    if store.synthetic:
        report.add(Level.INFO, "synthetic", path, "the tissue is synthetic")
    if not _has_consistent_tables(store):
        report.add(Level.ERROR, "tables", path, f"its tables contradict each other; {_REWRITE}")
        return
    digest = ContentDigest(store.tasks)
    for start in range(0, len(store), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(store)))
        _check_block(store, rows, digest, report)
        if progress:
            progress("reading the store", 0, len(rows))
    if digest.hexdigest() != store.digest:
        what = f"its content is not what was written (digest differs); {_REWRITE}"
        report.add(Level.ERROR, "digest", path, what)
    elif report.ok:
        _check_classes(store, report)
    _check_splits(dataset, store, report)
    report.patches = len(store)


def _has_consistent_tables(store: Store) -> bool:
    """Check that lengths and indices agree, so that rows can be read one by one."""
    count = len(store)
    dense = (TaskKind.SEGMENTATION, TaskKind.DETECTION)
    tables = [store.target(task.name) for task in store.tasks if task.kind not in dense]
    sound = all(len(table) == count for table in (store.group, *tables))
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


def _check_block(
    store: Store,
    rows: NDArray[np.int64],
    digest: ContentDigest,
    report: Report,
) -> None:
    """Add a block of patches to the digest; check their targets and images."""
    images = store.images(rows)
    columns: dict[str, Sequence[Target]] = {}
    for task in store.tasks:
        if task.kind is TaskKind.SEGMENTATION:
            columns[task.name] = list(store.masks(task.name, rows))
        elif task.kind is TaskKind.DETECTION:
            columns[task.name] = [store.boxes(task.name, row) for row in rows.tolist()]
        else:
            columns[task.name] = list(store.target(task.name)[rows])
    names = store.sources(rows)
    spread = np.ptp(images.reshape(len(rows), -1, 3), axis=1).max(axis=1)
    for position, (row, name) in enumerate(zip(rows.tolist(), names, strict=True)):
        targets = {task: column[position] for task, column in columns.items()}
        group, split = store.group_name(row), store.split_name(row)
        digest.add(split, group, name, images[position], targets)
        where = f"{name} (row {row})"
        try:
            check_targets(where, targets, store.tasks, (store.side, store.side))
        except LayoutError as error:
            report.add(Level.ERROR, "target out of range", where, f"{error}; {_REWRITE}")
        if spread[position] <= _FLAT:
            colour = images[position, 0, 0].tolist()
            what = f"empty image: all of it is RGB {colour} within {_FLAT} grey levels"
            report.add(Level.WARNING, "empty image", where, what)


def _check_classes(store: Store, report: Report) -> None:
    balance = class_balance(store)
    for task in store.tasks:
        for label in task.classes:
            if not balance[task.name][label]:
                what = f"class '{label}' of task '{task.name}' never occurs"
                report.add(Level.WARNING, "class without example", store.path, what)


def _check_splits(dataset: DatasetReader, store: Store, report: Report) -> None:
    """Check that no group is in two splits; a published overlap is a warning with its reason."""
    groups = {split: set(store.group[dataset.rows(split)].tolist()) for split in SPLITS}
    if not groups["train"]:
        report.add(Level.INFO, "split", store.path, "no image is left for training")
    level = Level.WARNING if dataset.split_overlap else Level.ERROR
    reason = dataset.split_overlap or "the split leaks; correct the reader or its options"
    for first, second in combinations(SPLITS, 2):
        shared = sorted(groups[first] & groups[second])
        if shared:
            names = ", ".join(store.group_names[group] for group in shared[:5])
            more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
            what = (
                f"{len(shared)} groups ({dataset.grouping}) lie in {first} and in {second}: "
                f"{names}{more}; {reason}"
            )
            report.add(level, "shared group", store.path, what)
