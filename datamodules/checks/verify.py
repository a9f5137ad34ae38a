"""Verification of a dataset: read all raw files and the whole store, and report problems."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.checks.findings import Level, Report, write_stamp
from datamodules.checks.raw_files import REWRITE, add_notes, check_raw_files
from datamodules.checks.split_facts import leaks, validation_cautions
from datamodules.core.cores import available_cores
from datamodules.core.errors import LayoutError, StoreError
from datamodules.core.progress import Work
from datamodules.reader import DatasetReader
from datamodules.store.attributes import SEAL, attributes_match, notes_of
from datamodules.store.class_balance import class_balance
from datamodules.store.content import ContentDigest
from datamodules.store.reader import Store
from datamodules.store.tables import seal_differs, table_problem
from datamodules.store.validation import check_targets

_BLOCK = 64  # patches read at a time
_FLAT = 2  # grey levels; a patch that differs no more holds no tissue


def verify(dataset: DatasetReader, workers: int = 0) -> Report:
    """Read a dataset's raw files and its store from end to end.

    Raw files: the layout, every image and every target. Store: seals and content digest, range of
    targets, empty images, groups shared between splits, classes without examples. Both: every row
    of the store is what the raw files give now. What a reader skips or finds odd is a warning.
    Memory is bounded by a block of patches and the names of the images. A store without errors is
    stamped as verified. `workers` processes read raw files, 0 means one per core.
    """
    report = Report(dataset.name)
    path = dataset.store_path
    prepared = path.exists()
    store = _open(path, report) if prepared else None
    check_raw_files(dataset, store, report, workers or available_cores())
    if store:
        if not report.records:
            add_notes(notes_of(store.attributes), report, " (when it was prepared)")
        try:
            _verify_store(dataset, store, report)
        except StoreError as error:
            report.add(Level.ERROR, "store", path, str(error))
    if prepared:
        try:
            write_stamp(dataset, report.ok)
        except StoreError as error:  # the store may lie on a read-only disk
            report.add(Level.WARNING, "stamp", path, str(error))
    else:
        what = "not prepared yet; run `python -m lightning_app datasets prepare`"
        report.add(Level.INFO, "store", path, what)
    return report


def _open(path: Path, report: Report) -> Store | None:
    """Open a store whose rows can be read one by one; report wrong seals and tables."""
    try:
        store = Store(path, checked=False)
        with store.tables() as file:
            problem = table_problem(file, store.attributes, store.tasks)
            changed = seal_differs(file, store.attributes)
    except StoreError as error:
        report.add(Level.ERROR, "store", path, str(error))
        return None
    if not attributes_match(store.attributes):
        what = "its attributes (classes, licence, um/px, ...) are not what was written"
        report.add(Level.ERROR, "seal", path, f"{what} (seal differs); {REWRITE}")
    if changed:
        what = "its tables (targets, splits, groups, ...) are not what was written"
        report.add(Level.ERROR, "tables seal", path, f"{what} (seal differs); {REWRITE}")
    if SEAL not in store.attributes:
        what = "made before seals existed: changes of attributes and places cannot be seen"
        report.add(Level.INFO, "unsealed", path, what)
    if problem:
        report.add(Level.ERROR, "tables", path, f"{problem}; {REWRITE}")
        return None
    return store


def _verify_store(dataset: DatasetReader, store: Store, report: Report) -> None:
    where = store.path
    if store.synthetic:
        report.add(Level.INFO, "synthetic", where, "the tissue is synthetic")
    digest, sound = ContentDigest(store.tasks), True
    with Work(f"reading the store of {dataset.name}", "patches", len(store)) as progress:
        for start in range(0, len(store), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(store)))
            sound &= _check_block(store, rows, digest, report)
            progress.advance(len(rows))
    if digest.hexdigest() != store.digest:
        what = f"its content is not what was written (digest differs); {REWRITE}"
        report.add(Level.ERROR, "digest", where, what)
    if sound:
        _check_classes(store, report)
        _check_splits(dataset, store, report)
    report.patches = len(store)


def _check_block(
    store: Store, rows: NDArray[np.int64], digest: ContentDigest, report: Report
) -> bool:
    """Add a block of patches to the digest; return whether all their targets are in range."""
    images, sound = store.images(rows), True
    spread = np.ptp(images.reshape(len(rows), -1, 3), axis=1).max(axis=1)
    patches = zip(rows.tolist(), store.sources(rows), images, store.targets_of(rows), strict=True)
    for position, (row, name, image, targets) in enumerate(patches):
        digest.add(store.split_name(row), store.group_name(row), name, image, targets)
        where = f"{name} (row {row})"
        try:
            check_targets(where, targets, store.tasks, (store.side, store.side))
        except LayoutError as error:
            sound = False
            report.add(Level.ERROR, "target out of range", where, f"{error}; {REWRITE}")
        if spread[position] <= _FLAT:
            colour = image[0, 0].tolist()
            what = f"empty image: all of it is RGB {colour} within {_FLAT} grey levels"
            report.add(Level.WARNING, "empty image", where, what)
    return sound


def _check_classes(store: Store, report: Report) -> None:
    balance = class_balance(store)
    for task in store.tasks:
        for label in task.classes:
            if not balance[task.name][label]:
                what = f"class '{label}' of task '{task.name}' never occurs"
                report.add(Level.WARNING, "class without example", store.path, what)


def _check_splits(dataset: DatasetReader, store: Store, report: Report) -> None:
    """Check that no group is in two splits; a published overlap is a warning with its reason."""
    where = store.path
    if not len(dataset.rows("train", store)):
        report.add(Level.INFO, "split", where, "no image is left for training")
    level = Level.WARNING if dataset.split_overlap else Level.ERROR
    remedy = "" if dataset.split_overlap else "; the split leaks; correct the reader or its options"
    for leak in leaks(dataset, store):
        report.add(level, "shared group", where, leak.text + remedy)
    for caution in validation_cautions(dataset, store):
        report.add(Level.WARNING, "validation", where, caution)
