"""Grouped folds, and nested subsets of labelled images.

All depends only on (seed, dataset, fold, repeat) and the dataset, so all encoders get the same
images.
"""

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
from evaluation.config import Role

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]

QUANTILE_BINS = 5  # strata of a regression target: ten labels contain two of each


@dataclass(frozen=True)
class Fold:
    """Rows of images that may carry labels, and of test images; they share no group."""

    number: int  # 0 for the official test split; grouped folds count from 1
    pool: Rows  # ascending
    test: Rows  # ascending


def seed_from(*parts: object) -> int:
    """Return a 32-bit seed that depends only on the given parts."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def strata_of(kind: TaskKind, targets: NDArray[Any]) -> Rows:
    """Return the stratum of each image: its class, or the fifth that its value falls into.

    Subsets need the targets of a fold's pool alone: those of test images must not shape them.
    """
    if kind is TaskKind.CLASSIFICATION:
        return np.unique(targets, return_inverse=True)[1].astype(np.int64)
    inner = np.linspace(0, 1, QUANTILE_BINS + 1)[1:-1]
    edges = np.unique(np.quantile(targets, inner))
    bins = np.searchsorted(edges, targets, side="left")
    return np.unique(bins, return_inverse=True)[1].astype(np.int64)


def groups_of_role(names: Sequence[str], role: Role) -> NDArray[np.bool_]:
    """Return which groups a study may use, (len(names),): all, or those of one half.

    The first bit of the SHA-256 of a group's name decides, so a patient belongs to the same half in
    every dataset that names them alike, on every machine and for every seed.

    Args:
        names: names of patients, slides or cases.
        role: "all", "develop" or "report".
    """
    bits = [hashlib.sha256(name.encode()).digest()[0] >> 7 for name in names]
    return np.array([role == "all" or bit == (role == "report") for bit in bits], np.bool_)


def make_folds(
    dataset: str,
    kind: TaskKind,
    targets: NDArray[Any],
    groups: NDArray[np.int32],
    split: NDArray[np.uint8],
    folds: int,
    seed: int,
) -> list[Fold]:
    """Return the folds of a dataset; no group of a test set is in its pool.

    With `folds` 0 the published test split, or the validation split where test images were not
    published, is the test set and the rest is the pool. Otherwise groups are spread over that many
    folds of similar size and strata, and each fold is held out in turn; with no more groups than
    folds, each group is held out once.

    Raises:
        ProbeError: there is no test set that is disjoint from the pool by group.
    """
    if folds < 0:
        raise ProbeError(f"{dataset}: folds is {folds}; use 0 (official test split) or more")
    if folds == 0:
        return [_official(dataset, groups, split)]
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ProbeError(
            f"{dataset}: all {len(groups)} images belong to one group (patient, slide or case), so "
            "no test set can be held out by group; add images of a second group"
        )
    if folds == 1:
        raise ProbeError(f"{dataset}: one fold leaves nothing to train on; use 2 folds or more")
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
        raise ProbeError(f"{dataset}: the publisher names no test images; {remedy}")
    if is_test.all():
        raise ProbeError(f"{dataset}: all images are test images, none can carry labels; {remedy}")
    both = np.intersect1d(groups[is_test], groups[~is_test])
    if len(both):
        raise ProbeError(
            f"{dataset}: {len(both)} groups are on both sides of the published test split, so "
            f"scores would reward recognising patients; {remedy}"
        )
    return Fold(0, np.flatnonzero(~is_test), np.flatnonzero(is_test))


def _spread(strata: Rows, group: NDArray[Any], folds: int, seed: int) -> Rows:
    """Return the fold of each image; the splitter leaves no fold empty."""
    if np.bincount(strata).max() < folds:
        strata = np.zeros_like(strata)  # every class is too small to be spread
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    held_out = np.zeros(len(group), np.int64)
    with warnings.catch_warnings():
        # A class with fewer images than folds is missing in some folds; scores pool the folds.
        warnings.filterwarnings("ignore", "The least populated class")
        for number, (_, test) in enumerate(splitter.split(strata, strata, group)):
            held_out[test] = number
    return held_out


def nested_order(strata: Rows, groups: NDArray[np.int32], seed: int) -> Rows:
    """Return an order of a pool, (n,) int64, in which the first images are a stratified subset.

    `strata` and `groups` are (n,). Subsets are nested: the 30 contain the 10.

    - *Within a stratum* groups take turns in random order, each contributing one random image per
      turn while it has any, so few labels come from many patients.
    - *Between strata* the first turn takes one image of each, in random order; then each stratum
      gets the places that correspond to its share of the pool (Webster's method: its j-th image,
      from 0, has position (j + 1/2) / size). So n labels contain every stratum as soon as n reaches
      the number of strata, and then follow the pool's shares.
    """
    rng = np.random.default_rng(seed)
    position, tie = np.empty(len(strata)), np.empty(len(strata))
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
    """Return an order of one stratum's images in which its groups take turns."""
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
    """Return the sizes that every fold can provide, ascending, with 0 last for the whole pool.

    Sizes that reach the smallest pool are replaced by one 0.

    Example:
        >>> fold = Fold(1, pool=np.arange(98), test=np.arange(98, 120))
        >>> subset_sizes([30, 10, 100, 300], [fold])
        [10, 30, 0]
    """
    smallest = min(len(fold.pool) for fold in folds)
    kept = sorted({size for size in sizes if 0 < size < smallest})
    whole_pool = any(size == 0 or size >= smallest for size in sizes)
    return [*kept, 0] if whole_pool else kept


def subset(order: Rows, size: int) -> Rows:
    """Return the first `size` positions of a nested order, ascending; all for 0."""
    return np.sort(order[:size] if size else order)
