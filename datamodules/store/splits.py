"""Which rows of a store belong to training, validation and test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import SPLITS
from datamodules.store.reader import Store


def rows_of_split(
    store: Store, split: str, val_fraction: float, val_limit: int, seed: int
) -> NDArray[np.int64]:
    """Return the rows of a split.

    If no validation split is published, a share of the training groups is held out, selected by
    the seed; if there is only one group, validation is empty.

    Args:
        store: the dataset's store.
        split: "train", "val" or "test".
        val_fraction: share of the training patches to hold out if no validation is published.
        val_limit: maximum number of validation rows; 0 keeps all.
        seed: of the held-out groups and of the limited rows.

    >>> from types import SimpleNamespace
    >>> store = SimpleNamespace(split=np.zeros(6, np.uint8), group=np.array([0, 0, 1, 1, 2, 2]))
    >>> rows_of_split(store, "val", val_fraction=0.3, val_limit=0, seed=0)
    array([4, 5])
    >>> rows_of_split(store, "train", val_fraction=0.3, val_limit=0, seed=0)
    array([0, 1, 2, 3])
    """
    published = np.asarray(store.split)
    if split == "test" or (published == SPLITS.index("val")).any():
        rows = np.flatnonzero(published == SPLITS.index(split))
    else:
        train = published == SPLITS.index("train")
        held_out = np.isin(store.group, _held_out(store.group[train], val_fraction, seed))
        rows = np.flatnonzero(train & (held_out if split == "val" else ~held_out))
    if split == "val" and 0 < val_limit < len(rows):
        rows = np.sort(np.random.default_rng(seed).choice(rows, val_limit, replace=False))
    return rows


def _held_out(groups: NDArray[np.int32], val_fraction: float, seed: int) -> NDArray[np.int32]:
    numbers, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(numbers))
    before = np.cumsum(counts[order]) - counts[order]
    chosen = order[before < val_fraction * len(groups)]
    return np.asarray(numbers[chosen[: len(numbers) - 1]], np.int32)  # training keeps one group
