"""Which rows of a store belong to training, validation and test."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import SPLITS, Task, TaskKind
from datamodules.store.reader import Store

_MOST = 2.0  # a class may bring validation up to so many times the wanted share, not more


def rows_of_split(
    store: Store, split: str, val_fraction: float, val_limit: int, seed: int
) -> NDArray[np.int64]:
    """Return the rows of a split.

    If no validation split is published, whole groups of the training images are held out, see
    `held_out`; if there is only one group, validation is empty.

    At most `val_limit` validation rows are kept, where it is not 0, and of each class one at least
    where the number allows.

    >>> from types import SimpleNamespace
    >>> groups = np.repeat([0, 1, 2], [90, 6, 4])
    >>> store = SimpleNamespace(split=np.zeros(100, np.uint8), group=groups, tasks=())
    >>> np.unique(groups[rows_of_split(store, "val", val_fraction=0.1, val_limit=0, seed=0)])
    array([1, 2])
    """
    published = np.asarray(store.split)
    if split == "test" or (published == SPLITS.index("val")).any():
        rows = np.flatnonzero(published == SPLITS.index(split))
    else:
        train = np.flatnonzero(published == SPLITS.index("train"))
        known = vars(store).setdefault("held_out", {})  # 300,000 groups take a second
        if (val_fraction, seed) not in known:
            presence = class_presence(store)[train]
            chosen = held_out(store.group[train], presence, val_fraction, seed)
            known[val_fraction, seed] = chosen
        inside = np.isin(store.group[train], known[val_fraction, seed])
        rows = train[inside if split == "val" else ~inside]
    if split == "val" and 0 < val_limit < len(rows):
        order = np.random.default_rng(seed).permutation(rows)
        present = class_presence(store)[order]
        first = np.unique(present.argmax(axis=0)[present.any(axis=0)])
        rows = np.sort(np.concatenate([order[first], np.delete(order, first)])[:val_limit])
    return rows


def class_names(store: Store) -> list[str]:
    """What the columns of `class_presence` are: "class of task"."""
    return [f"{name} of {task.name}" for task in _with_classes(store) for name in task.classes]


def class_presence(store: Store) -> NDArray[np.bool_]:
    """Whether each patch shows each class, (n, classes), over all tasks with classes.

    Masks are left out: to look into all of them takes as long as a training epoch.
    """
    columns = [np.zeros((len(store.split), 0), np.bool_)]
    for task in _with_classes(store):
        if task.kind is TaskKind.DETECTION:
            columns.append(store.object_classes(task.name))
        elif task.kind is TaskKind.MULTILABEL:
            columns.append(store.target(task.name) > 0)
        else:
            columns.append(store.target(task.name)[:, None] == np.arange(len(task.classes)))
    return np.concatenate(columns, axis=1)


def _with_classes(store: Store) -> list[Task]:
    without = (TaskKind.SEGMENTATION, TaskKind.REGRESSION)
    return [task for task in store.tasks if task.kind not in without]


def held_out(
    groups: NDArray[np.int32], presence: NDArray[np.bool_], fraction: float, seed: int
) -> NDArray[np.int32]:
    """Choose whole groups for validation: of the wanted size, and alike in classes.

    Greedy, in an order that follows from the seed. A class that training can spare (two groups
    have it) comes first, the rarest before the others; then groups are taken as long as neither
    the wanted number of patches nor a class's share of it is passed, then without regard to
    classes. A group that overshoots is passed over for one that fits. Training keeps every class.
    Where no group fits, the smallest one is held out. `groups` (n,) and `presence` (n, classes)
    are the group of each patch and the classes that it shows.
    """
    numbers, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(numbers) < 2 or not fraction:
        return np.zeros(0, np.int32)
    counts = [np.bincount(inverse, weights=column, minlength=len(numbers)) for column in presence.T]
    draft = _Draft(sizes, np.array(counts).reshape(-1, len(numbers)).T, fraction)
    order = np.random.default_rng(seed).permutation(len(numbers))
    holders = (draft.counts > 0).sum(axis=0)
    for label in np.argsort(holders, kind="stable"):
        draft.cover(label, order)
    smallest = int(sizes.min())
    for suits in (draft.within_classes, draft.spared):
        for group in order.tolist():
            if draft.room < smallest:
                break
            if sizes[group] <= draft.room and draft.spared(group) and suits(group):
                draft.take(group)
    if not draft.chosen.any():
        free = order[draft.free()[order]]
        draft.chosen[free[np.argsort(sizes[free], kind="stable")][:1]] = True
    return np.asarray(numbers[draft.chosen], np.int32)


class _Draft:
    """A validation split in the making."""

    def __init__(self, sizes: NDArray[np.int64], counts: NDArray[Any], fraction: float) -> None:
        self.sizes, self.counts = sizes, counts  # (groups, classes), patches that show a class
        wanted = max(1, round(fraction * int(sizes.sum())))
        self.chosen = np.zeros(len(sizes), np.bool_)
        self.taken = 0  # groups
        self.room, self.most = wanted, _MOST * wanted  # patches that are still wanted
        self._left = counts.sum(axis=0)  # in training
        self._quota = np.ceil(fraction * self._left)

    def free(self) -> NDArray[np.bool_]:
        """Which groups training can spare: it keeps all classes and a patch without one."""
        rest = (self.counts == 0) | (self._left > self.counts)
        many = self.taken < len(self.sizes) - 1
        return np.asarray(~self.chosen & rest.all(axis=1) & many, np.bool_)

    def spared(self, group: int) -> bool:
        """Whether training can spare one group."""
        has = self.counts[group]
        others = self.taken < len(self.sizes) - 1
        return bool(others and not self.chosen[group] and ((has == 0) | (self._left > has)).all())

    def within_classes(self, group: int) -> bool:
        """Whether no class of a group passes its share."""
        has = self.counts[group]
        return bool(((has == 0) | (has <= self._quota)).all())

    def take(self, group: int) -> None:
        """Hold a group out."""
        self.chosen[group] = True
        self.taken += 1
        self.room -= int(self.sizes[group])
        self._left -= self.counts[group]
        self._quota -= self.counts[group]

    def cover(self, label: int, order: NDArray[np.int64]) -> None:
        """Hold out a group with a class, unless one is or training cannot spare it."""
        if self.counts[self.chosen, label].any():
            return
        usable = order[(self.free() & (self.counts[:, label] > 0))[order]]
        fitting = usable[self.sizes[usable] <= self.room]
        if not len(fitting):
            held = int(self.sizes[self.chosen].sum())
            by_size = usable[np.argsort(self.sizes[usable], kind="stable")]
            fitting = by_size[held + self.sizes[by_size] <= self.most]
        if len(fitting):
            self.take(int(fitting[0]))
