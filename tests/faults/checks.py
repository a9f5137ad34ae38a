"""Checks that a difference is no more than what the damaged file itself says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.core.records import Boxes
from tests.faults.difference import Difference, key_of, objects_of

Check = Callable[[Difference], bool]


def pixels(d: Difference) -> bool:
    """Only the picture in this file differs; targets at most beyond its former or new edge."""
    if d.lost or d.added or d.tasks or set(d.changed) != {d.file}:
        return False
    sizes = (d.before[d.file].size, d.after[d.file].size)
    height, width = min(s[0] for s in sizes), min(s[1] for s in sizes)

    def inside(target: Any) -> Any:
        if isinstance(target, Boxes):
            xyxy = target.xyxy.clip(0, np.array([width, height] * 2, np.float32))
            return key_of(Boxes(xyxy, target.labels))
        return key_of(target[:height, :width]) if isinstance(target, np.ndarray) else target

    return all(k == "image" or inside(a) == inside(b) for k, (a, b) in d.changed[d.file].items())


def exchanged(d: Difference) -> bool:
    """Nothing is new: what images have lost, others have got."""
    if d.lost or d.added or d.tasks:
        return False
    for aspect in {name for differ in d.changed.values() for name in differ}:
        pairs = [differ[aspect] for differ in d.changed.values() if aspect in differ]
        old, new = (sorted(repr(key_of(pair[end])) for pair in pairs) for end in (0, 1))
        if old != new:
            return False
    return True


def gone(d: Difference) -> bool:
    """The image in this file is gone, and nothing else differs."""
    return d.lost == {d.file} and not (d.added or d.changed or d.tasks)


def copied(d: Difference) -> bool:
    """The copy of the file is an image more, and nothing else differs."""
    names = [Path(source).name.startswith("copy_") for source in d.added]
    return names == [True] and not (d.lost or d.changed or d.tasks)


def ungrouped(d: Difference) -> bool:
    """It was told that there are no groups: images became their own."""
    alone = [
        differ == {"group": differ["group"]} and source == differ["group"][1]
        for source, differ in d.changed.items()
        if "group" in differ
    ]
    return d.noted > 0 and d.size == sum(alone) and not d.tasks


def regrouped(d: Difference) -> bool:
    """Groups differ alone: all of them, which was told, or those of images of one group."""
    alone = all(set(differ) == {"group"} for differ in d.changed.values())
    former = {differ["group"][0] for differ in d.changed.values() if "group" in differ}
    return alone and not (d.lost or d.added or d.tasks) and (d.noted > 0 or len(former) == 1)


def one_split(d: Difference) -> bool:
    """One image lies in another part, and nothing else differs."""
    alone = [set(differ) == {"split"} for differ in d.changed.values()]
    return alone == [True] and not (d.lost or d.added or d.tasks)


def relabelled(d: Difference) -> bool:
    """Two classes of one image have exchanged their boxes."""
    if d.lost or d.added or d.tasks or len(d.changed) != 1:
        return False
    differ = list(next(iter(d.changed.values())).values())
    if len(differ) != 1 or not all(hasattr(boxes, "xyxy") for boxes in differ[0]):
        return False
    old, new = differ[0]
    return sorted(old.xyxy.tolist()) == sorted(new.xyxy.tolist())


def same_elsewhere(d: Difference) -> bool:
    """The image is read from its other copy, and nothing else differs."""
    if d.changed or d.tasks or d.lost != {d.file} or len(d.added) != 1:
        return False
    old, new = d.before[d.file], d.after[next(iter(d.added))]
    return old.image == new.image and (old.group, old.targets) == (new.group, new.targets)


def union_less(d: Difference) -> bool:
    """Of one image only, foreground is gone, no more than its mask files had."""
    if d.lost or d.added or len(d.changed) != 1:
        return False
    (differ,) = d.changed.values()
    old, new = differ.get("nuclei", (None, None))
    return len(differ) == 1 and new is not None and bool((new <= old).all())


def points(d: Difference) -> bool:
    """The objects of one image are what a plain reading of its table of points says."""
    if d.lost or d.added or len(d.changed) != 1:
        return False
    ((source, differ),) = d.changed.items()
    old, new = next(iter(differ.values()))
    if len(differ) > 1 or not isinstance(new, Boxes) or Path(source).stem != Path(d.file).stem:
        return False
    rows = np.array(
        [list(map(float, line.split(","))) for line in (d.root / d.file).read_text().split()]
    ).reshape(-1, 2 if "ground_truth" in d.file else 3)
    if rows.shape[1] == 3:
        centres, labels, theirs = rows[:, :2], rows[:, 2] - 1, slice(None)
    else:
        label = 1 if "nonmitoses" in d.file else 0
        others = [
            objects_of(Boxes(b.xyxy[b.labels != label], b.labels[b.labels != label]))
            for b in (old, new)
        ]
        if others[0] != others[1]:
            return False
        theirs = new.labels == label
        centres, labels = rows[:, ::-1], np.full(len(rows), label)
    boxes, kinds = new.xyxy[theirs], new.labels[theirs]
    if len(boxes) != len(rows) or not (kinds == labels).all():
        return False
    height, width = d.after[source].size
    side = (old.xyxy[:, 2:] - old.xyxy[:, :2]).max()
    edge = np.array([width, height] * 2)
    expected = np.concatenate([centres - side / 2, centres + side / 2], axis=1).clip(0, edge)
    return bool(np.allclose(boxes, expected, atol=0.01))


def few(d: Difference, most: int = 4) -> bool:
    """As many values differ as bits were flipped, each to what now stands in the file.

    Images that are gone were counted.
    """
    text = (d.root / d.file).read_bytes().decode("utf-8", "replace")
    if len(d.lost) > d.noted or d.added or d.tasks or len(d.changed) > most:
        return False
    moved: Counter[str] = Counter()
    for source, differ in d.changed.items():
        items = (d.before[source], d.after[source])
        boxes = [b for item in items for b in item.targets.values() if isinstance(b, Boxes)]
        for aspect, (old, new) in differ.items():
            if isinstance(new, Boxes):
                first, second = objects_of(old), objects_of(new)
                moved["from"] += (first - second).total()
                moved["to"] += (second - first).total()
            elif isinstance(new, np.ndarray) and new.ndim == 2:
                moved["areas"] += _areas(old != new, boxes)
            elif isinstance(new, np.ndarray):
                moved["labels"] += int((old != new).sum())
            elif aspect == "image" and source.startswith(f"{d.file}#"):
                moved["images"] += 1
            elif aspect in ("split", "image") or not any(w in text for w in _spellings(new)):
                return False
    return max(moved.values(), default=0) <= most


def one(d: Difference) -> bool:
    """As `few`, for one value."""
    return few(d, 1)


def _areas(differ: np.ndarray, boxes: list[Boxes]) -> int:
    """How many single pixels or boxes of objects hold all the pixels that differ."""
    left, count = differ.copy(), 0
    corners = np.concatenate([b.xyxy for b in boxes]) if boxes else np.zeros((0, 4))
    spans = [
        (slice(max(0, int(y1) - 1), int(y2) + 2), slice(max(0, int(x1) - 1), int(x2) + 2))
        for x1, y1, x2, y2 in corners.tolist()
    ]
    while left.any():
        span = max(spans, key=lambda one: int(left[one].sum()), default=None)
        if span is None or left[span].sum() <= 1:
            return count + int(left.sum())
        left[span] = False
        count += 1
    return count


def _spellings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value, value.rpartition("/")[2], value.split()[-1]]
    return [f"{value:g}", repr(value), f"{value:.6f}"]


def renamed(d: Difference) -> bool:
    """Nothing but the names of classes differ."""
    return not (d.lost or d.added or d.changed)
