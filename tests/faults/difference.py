"""What differs between a sound and a damaged dataset, image by image, before it is cut up."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.core.notes import collecting
from datamodules.core.records import Boxes, Target
from datamodules.formats.images import read_image
from datamodules.reader import DatasetReader


@dataclass(frozen=True)
class Item:
    """One image as a reader hands it over, before it is cut into patches."""

    split: str
    group: str
    mpp: float | None
    size: tuple[int, int]
    image: bytes
    targets: Mapping[str, Target]


Items = Mapping[str, Item]


def items_of(dataset: DatasetReader) -> dict[str, Item]:
    """All images of a dataset with their targets, by source."""
    items = {}
    with collecting():
        names = [task.name for task in dataset.tasks_in(dataset.root)]
        for record in dataset.read():
            image = record.image
            pixels = read_image(image) if isinstance(image, Path) else image()
            lazy = {name: record.targets[name] for name in names}
            items[record.source] = Item(
                record.split,
                record.group,
                record.mpp,
                (pixels.shape[0], pixels.shape[1]),
                hashlib.sha256(pixels.tobytes()).digest(),
                {name: target() if callable(target) else target for name, target in lazy.items()},
            )
    return items


def objects_of(boxes: Boxes) -> Counter[tuple[float, ...]]:
    """Boxes with their labels, whatever their order."""
    rows = np.column_stack([boxes.xyxy, boxes.labels])
    return Counter(map(tuple, rows.astype(float).tolist()))


def key_of(value: Any) -> Any:
    """What tells two values apart."""
    if isinstance(value, Boxes):
        return sorted(objects_of(value).items())
    return (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


@dataclass(frozen=True)
class Difference:
    """What a damaged file changed.

    Attributes:
        root: folder of the damaged dataset.
        file: the damaged file below it.
        before, after: images of the sound and of the damaged dataset.
        tasks: whether tasks or names of classes differ.
        noted: how much more was skipped or warned of.
    """

    root: Path
    file: str
    before: Items
    after: Items
    tasks: bool = False
    noted: int = 0

    @property
    def lost(self) -> set[str]:
        """Images that are gone."""
        return set(self.before) - set(self.after)

    @property
    def added(self) -> set[str]:
        """Images that were not there."""
        return set(self.after) - set(self.before)

    @cached_property
    def changed(self) -> dict[str, dict[str, tuple[Any, Any]]]:
        """By source and aspect, what it was and what it is."""
        changed = {}
        for source in self.before.keys() & self.after.keys():
            old, new = _aspects(self.before[source]), _aspects(self.after[source])
            differ = {k: (old[k], new[k]) for k in old if key_of(old[k]) != key_of(new[k])}
            if differ:
                changed[source] = differ
        return changed

    @property
    def size(self) -> int:
        """Images that differ; all where tasks do."""
        if self.tasks:
            return len(self.before)
        return len(self.lost) + len(self.added) + len(self.changed)

    @property
    def told(self) -> str:
        """What differs, on one line."""
        aspects = Counter(name for differ in self.changed.values() for name in differ)
        parts = {"lost": len(self.lost), "added": len(self.added), "tasks": int(self.tasks)}
        return ", ".join(f"{name} {n}" for name, n in {**parts, **aspects}.items() if n)


def _aspects(item: Item) -> dict[str, Any]:
    names = [field.name for field in fields(Item) if field.name not in ("targets", "size")]
    return {name: getattr(item, name) for name in names} | dict(item.targets)
