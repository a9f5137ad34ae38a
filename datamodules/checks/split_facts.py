"""What is wrong with the splits of one dataset: groups on two sides, and a poor validation."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from datamodules.core.records import SPLITS
from datamodules.reader import DatasetReader
from datamodules.store.reader import Store
from datamodules.store.splits import class_names, class_presence, rows_of_split

_NAMED = 5


@dataclass(frozen=True)
class Leak:
    """Groups on two sides, so that scores of the second count what was seen on the first."""

    sides: tuple[str, str]  # in the order train, val, test
    groups: tuple[str, ...]
    share: float  # of the second side's patches that are of such a group
    text: str  # all of it in a sentence, with the publisher's reason where there is one


def split_warnings(dataset: DatasetReader) -> list[str]:
    """Everything about a dataset's splits that a reader of its scores must know."""
    found = [leak.text for leak in leaks(dataset, dataset.store)]
    return [*found, *validation_cautions(dataset, dataset.store)]


def leaks(dataset: DatasetReader, store: Store) -> list[Leak]:
    """The groups that lie on two sides of training, validation and test."""
    rows = {split: dataset.rows(split, store) for split in SPLITS}
    found = []
    for one, other in combinations(SPLITS, 2):
        groups = store.group[rows[other]]
        shared = np.intersect1d(store.group[rows[one]], groups)
        if len(shared):
            names = tuple(sorted(store.group_names[group] for group in shared))
            share = float(np.isin(groups, shared).mean())
            plural, lie = ("", "lies") if len(names) == 1 else ("s", "lie")
            text = (
                f"{len(names)} group{plural} ({dataset.grouping}) {lie} in {one} and in {other}: "
                f"{_listed(names)}; {share:.0%} of the {other} patches are of them"
            )
            reason = f"; {dataset.split_overlap}" if dataset.split_overlap else ""
            found.append(Leak((one, other), names, share, text + reason))
    return found


def validation_cautions(dataset: DatasetReader, store: Store) -> list[str]:
    """Where validation is empty, much larger or smaller than wanted, or lacks a class."""
    data = dataset.data
    published = bool((store.split == SPLITS.index("val")).any())
    if not published and not data.val_fraction:
        return []  # as it was asked for
    train, held = (
        rows_of_split(store, side, data.val_fraction, 0, data.seed) for side in ("train", "val")
    )
    if not len(train):
        return []
    if not len(held):
        kept = f"training cannot spare a group ({dataset.grouping})"
        return [f"validation is empty: {kept}; each is the only one, or the only one of a class"]
    found = []
    total = len(train) + len(held)
    wanted = max(1, round(data.val_fraction * total))
    if not published and not wanted / 1.5 <= len(held) <= wanted * 1.5:
        found.append(
            f"validation holds {len(held) / total:.1%} of the training patches, "
            f"{data.val_fraction:.1%} were wanted: groups ({dataset.grouping}) stay whole"
        )
    present = class_presence(store)
    known = present[train].any(axis=0) | present[held].any(axis=0)
    missing = known & ~present[dataset.rows("val", store)].any(axis=0)
    if lacking := np.flatnonzero(missing).tolist():
        names = [class_names(store)[column] for column in lacking]
        found.append(
            f"validation lacks {len(names)} of {int(known.sum())} classes ({_listed(names)}): "
            f"training cannot spare a group ({dataset.grouping}) with them, or data.val_limit is "
            "too small"
        )
    return found


def _listed(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
