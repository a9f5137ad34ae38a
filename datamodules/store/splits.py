"""Which rows of a store belong to training, validation and test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import SPLITS
from datamodules.store.reader import Store


def rows_of_split(
    store: Store, split: str, val_fraction: float, val_limit: int, seed: int
) -> NDArray[np.int64]:
    """Rows of the store that belong to a split.

    Where nothing is published as validation, a share of the training groups is held out,
    chosen by the seed; where there is only one group, validation is empty.

    Args:
        store: the dataset's store.
        split: "train", "val" or "test".
        val_fraction: share of the training patches to hold out where no validation is published.
        val_limit: most validation rows; 0 keeps all.
        seed: of the held-out groups and of the limited rows.
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
    names, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    chosen = order[before < val_fraction * len(groups)]
    return np.asarray(names[chosen[: len(names) - 1]], np.int32)  # training keeps one group
