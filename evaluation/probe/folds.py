"""Who trains and who tests: grouped folds, and nested subsets of labelled images.

Everything here follows from (seed, dataset, fold, repeat) and the dataset itself. Encoders do not
enter, so all of them see the very same images, and neither does the order of the work.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from datamodules.core.errors import ProbeError
from datamodules.core.records import SPLITS, TaskKind

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]

QUANTILE_BINS = 5
"""Strata of a regression target: fifths of the values, so that ten labels hold two of each."""


@dataclass(frozen=True)
class Fold:
    """A pool of images that may carry labels, and the images that test.

    Attributes:
        number: 0 is the official test split; grouped folds count from 1.
        pool: rows that subsets are drawn from, ascending.
        test: rows that are predicted, ascending; no group lies in both.
    """

    number: int
    pool: Rows
    test: Rows


def seed_from(*parts: object) -> int:
    """A 32-bit seed that depends on nothing but the words given."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def strata_of(kind: TaskKind, targets: NDArray[Any]) -> Rows:
    """The stratum of each image: its class, or the fifth that its value falls into."""
    if kind is TaskKind.CLASSIFICATION:
        return np.unique(targets, return_inverse=True)[1].astype(np.int64)
    inner = np.linspace(0, 1, QUANTILE_BINS + 1)[1:-1]
    edges = np.unique(np.quantile(targets, inner))
    bins = np.searchsorted(edges, targets, side="left")
    return np.unique(bins, return_inverse=True)[1].astype(np.int64)


def make_folds(
    dataset: str,
    kind: TaskKind,
    targets: NDArray[Any],
    groups: NDArray[np.int32],
    split: NDArray[np.uint8],
    folds: int,
    seed: int,
) -> list[Fold]:
    """The folds of a dataset, each with a test set whose groups never train.

    With `folds` 0 the published test split tests and everything else is the pool; a publisher
    who kept the test images back left the validation split for that. Otherwise the
    groups are spread over so many folds, alike in size and strata, and each is held out in turn;
    where there are no more groups than folds, each group is held out once.

    Raises:
        ProbeError: there is no test set without groups of the pool.
    """
    if folds < 0:
        raise ProbeError(f"{dataset}: folds is {folds}; take 0 (official test split) or more")
    if folds == 0:
        return [_official(dataset, groups, split)]
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ProbeError(
            f"{dataset}: all {len(groups)} images are of one group (patient, slide or case), so no "
            "test set can be held out by group; add images of a second group"
        )
    if folds == 1:
        raise ProbeError(f"{dataset}: one fold has nothing left to train; take folds 2 or more")
    if len(names) <= folds:
        held_out = group.astype(np.int64)
    else:
        held_out = _spread(strata_of(kind, targets), group, folds, seed_from(seed, dataset))
    rows = np.arange(len(groups))
    return [
        Fold(int(number) + 1, rows[held_out != number], rows[held_out == number])
        for number in np.unique(held_out)
    ]


def _official(dataset: str, groups: NDArray[np.int32], split: NDArray[np.uint8]) -> Fold:
    is_test = split == SPLITS.index("test")
    if not is_test.any():
        is_test = split == SPLITS.index("val")
    remedy = f"set data.unseen.{dataset}.folds, for example to 5, for grouped folds"
    if not is_test.any():
        raise ProbeError(f"{dataset}: its publisher names no test images; {remedy}")
    if is_test.all():
        raise ProbeError(f"{dataset}: all images are test images, none can carry labels; {remedy}")
    both = np.intersect1d(groups[is_test], groups[~is_test])
    if len(both):
        raise ProbeError(
            f"{dataset}: {len(both)} groups lie on both sides of the published test split, so its "
            f"scores would count recognised patients; {remedy}"
        )
    return Fold(0, np.flatnonzero(~is_test), np.flatnonzero(is_test))


def _spread(strata: Rows, group: NDArray[Any], folds: int, seed: int) -> Rows:
    """Fold of each image. An empty fold always attracts the next group, so none stays empty."""
    if np.bincount(strata).max() < folds:
        strata = np.zeros_like(strata)  # every class is too small to be spread
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    held_out = np.zeros(len(group), np.int64)
    with warnings.catch_warnings():
        # A class with fewer images than folds is missing in some; scores pool the folds.
        warnings.filterwarnings("ignore", "The least populated class")
        for number, (_, test) in enumerate(splitter.split(strata, strata, group)):
            held_out[test] = number
    return held_out


def nested_order(strata: Rows, groups: NDArray[np.int32], seed: int) -> Rows:
    """An order of a pool whose every beginning is a stratified subset from many groups.

    The first n of it are the subset of n labels, so the 30 contain the 10. Two rules make it:

    - *Within a stratum* groups take turns: in a random order each group gives one random image,
      then each a second one, and so on. A group gives again only when every other group that has
      images of this stratum left has given as often, so few labels come from many patients.
    - *Between strata* the first turn gives one image of each, in random order; then each stratum
      takes the places that its share of the pool gives it (Webster's method: its j-th image, from
      0, stands at (j + 1/2) / size). So n labels hold every stratum as soon as n reaches their
      number, and afterwards follow the pool's shares.

    Args:
        strata: stratum of each image of the pool.
        groups: group of each image of the pool.
        seed: of this fold and repeat.

    Returns:
        A permutation of the pool's positions, int64 (n,).
    """
    rng = np.random.default_rng(seed)
    position = np.empty(len(strata))
    tie = np.empty(len(strata))
    names = np.unique(strata)
    for name, turn in zip(names, rng.permutation(len(names)), strict=True):
        members = np.flatnonzero(strata == name)
        order = _take_turns(groups[members], rng)
        due = (np.arange(len(members)) + 0.5) / len(members)
        due[0] = -1.0
        position[members[order]] = due
        tie[members] = turn
    return np.lexsort((tie, position)).astype(np.int64)


def _take_turns(groups: NDArray[np.int32], rng: np.random.Generator) -> Rows:
    """Order of one stratum's images in which its groups take turns."""
    names, group = np.unique(groups, return_inverse=True)
    shuffled = rng.permutation(len(groups))
    by_group = shuffled[np.argsort(group[shuffled], kind="stable")]
    counts = np.bincount(group)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    turn = np.empty(len(groups), np.int64)
    turn[by_group] = np.arange(len(groups)) - starts
    place = rng.permutation(len(names))[group]
    return np.lexsort((place, turn)).astype(np.int64)


def subset_sizes(sizes: Sequence[int], folds: Sequence[Fold]) -> list[int]:
    """Sizes that every fold can give, ascending, with 0 last for "all of the pool".

    A size that reaches the smallest pool becomes "all", once.
    """
    smallest = min(len(fold.pool) for fold in folds)
    kept = sorted({size for size in sizes if 0 < size < smallest})
    wants_all = any(size == 0 or size >= smallest for size in sizes)
    return [*kept, 0] if wants_all else kept


def subset(order: Rows, size: int) -> Rows:
    """The first `size` positions of a nested order, ascending; 0 takes all."""
    return np.sort(order[:size] if size else order)
