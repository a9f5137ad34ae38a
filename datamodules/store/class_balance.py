"""Class frequencies of a store, and the rows of each class."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import ConfigError
from datamodules.core.records import Task, TaskKind
from datamodules.store.reader import Store

_BLOCK = 256  # masks read at a time
_BINS = 10
_UNITS = {
    **dict.fromkeys((TaskKind.CLASSIFICATION, TaskKind.REGRESSION), "patches"),
    **{TaskKind.MULTILABEL: "labels", TaskKind.DETECTION: "objects"},
    TaskKind.SEGMENTATION: "pixels",
}


def class_balance(store: Store) -> dict[str, dict[str, int]]:
    """Count by task name and class name; masks are read block by block.

    Counted are patches of classification and multilabel tasks, objects of detection tasks, pixels
    of segmentation tasks (with "ignored" for unlabelled ones), and patches of regression tasks in
    ten equal bins between the smallest and largest value.
    """
    return {task.name: _count(store, task) for task in store.tasks}


def balance_lines(store: Store) -> list[str]:
    """One line of text for each task, e.g. "tissue (patches): a 12 (60.0%), b 8 (40.0%)"."""
    lines = []
    for task in store.tasks:
        counts = _count(store, task)
        total = max(1, sum(counts.values()))
        shares = [f"{name} {count:,} ({count / total:.1%})" for name, count in counts.items()]
        lines.append(f"{task.name} ({_UNITS[task.kind]}): {', '.join(shares)}")
    return lines


def rows_by_class(
    store: Store, rows: NDArray[np.int64], task: str, dataset: str
) -> tuple[NDArray[np.int64], ...]:
    """Return the positions in `rows` of the patches of each class; empty classes are left out.

    A detection task has two classes: patches without and with an object. An empty name of a task
    returns nothing; one that the store lacks is a ConfigError.
    """
    if not task:
        return ()
    usable = {
        t.name: t for t in store.tasks if t.kind in (TaskKind.CLASSIFICATION, TaskKind.DETECTION)
    }
    if task not in usable:
        raise ConfigError(
            f"data.train.{dataset}.balance: no classification or detection task '{task}'; "
            f"known: {', '.join(usable) or 'none, leave it out'}"
        )
    if usable[task].kind is TaskKind.DETECTION:
        labels = store.object_counts(task)[rows] > 0
    else:
        labels = store.target(task)[rows]
    return tuple(np.flatnonzero(labels == label) for label in np.unique(labels))


def _count(store: Store, task: Task) -> dict[str, int]:
    if task.kind is TaskKind.REGRESSION:
        return _bins(store.target(task.name), task)
    if task.kind is TaskKind.SEGMENTATION:
        counts = np.zeros(256, np.int64)
        for start in range(0, len(store), _BLOCK):
            masks = store.masks(task.name, range(start, min(start + _BLOCK, len(store))))
            counts += np.bincount(masks.ravel(), minlength=256)
        named = dict(zip(task.classes, counts.tolist(), strict=False))
        return {**named, "ignored": int(counts[task.ignore_index])}
    if task.kind is TaskKind.MULTILABEL:
        counts = store.target(task.name).sum(axis=0, dtype=np.int64)
    else:
        detection = task.kind is TaskKind.DETECTION
        labels = store.object_labels(task.name) if detection else store.target(task.name)
        counts = np.bincount(labels, minlength=len(task.classes))
    return dict(zip(task.classes, counts.tolist(), strict=False))


def _bins(values: NDArray[np.float32], task: Task) -> dict[str, int]:
    low = float(values.min()) if task.low is None else task.low
    high = float(values.max()) if task.high is None else task.high
    counts, edges = np.histogram(values, bins=_BINS, range=(low, max(high, low + 1e-6)))
    names = [f"{left:.3g} to {right:.3g}" for left, right in pairwise(edges)]
    return dict(zip(names, counts.tolist(), strict=True))
