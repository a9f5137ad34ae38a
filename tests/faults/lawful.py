"""What damage may change in a store although nothing is told, and how that is checked.

A silent difference is lawful only where a row of `LAWFUL` names mutation, reader and file and its
check finds that nothing else differs than what the damaged files themselves say.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
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


def _objects(boxes: Boxes) -> Counter[tuple[float, ...]]:
    rows = np.column_stack([boxes.xyxy, boxes.labels])
    return Counter(map(tuple, rows.astype(float).tolist()))


def _key(value: Any) -> Any:
    """What tells two values apart."""
    if isinstance(value, Boxes):
        return sorted(_objects(value).items())
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
            differ = {k: (old[k], new[k]) for k in old if _key(old[k]) != _key(new[k])}
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
            return _key(Boxes(xyxy, target.labels))
        return _key(target[:height, :width]) if isinstance(target, np.ndarray) else target

    return all(k == "image" or inside(a) == inside(b) for k, (a, b) in d.changed[d.file].items())


def exchanged(d: Difference) -> bool:
    """Nothing is new: what images have lost, others have got."""
    if d.lost or d.added or d.tasks:
        return False
    for aspect in {name for differ in d.changed.values() for name in differ}:
        pairs = [differ[aspect] for differ in d.changed.values() if aspect in differ]
        old, new = (sorted(repr(_key(pair[end])) for pair in pairs) for end in (0, 1))
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


def union_less(d: Difference) -> bool:
    """Of one image only, foreground is gone, no more than its mask files had."""
    if d.lost or d.added or len(d.changed) != 1:
        return False
    ((aspect, (old, new)),) = next(iter(d.changed.values())).items()
    return aspect == "nuclei" and bool((new <= old).all())


def points(d: Difference) -> bool:
    """The objects of one image are what a plain reading of its table of points says."""
    if d.lost or d.added or len(d.changed) != 1:
        return False
    ((source, differ),) = d.changed.items()
    ((_, (old, new)),) = differ.items()
    rows = np.array(
        [list(map(float, line.split(","))) for line in (d.root / d.file).read_text().split()]
    ).reshape(-1, 2 if "ground_truth" in d.file else 3)
    if rows.shape[1] == 3:
        centres, labels, theirs = rows[:, :2], rows[:, 2] - 1, slice(None)
    else:
        label = 1 if "nonmitoses" in d.file else 0
        others = [
            _objects(Boxes(b.xyxy[b.labels != label], b.labels[b.labels != label]))
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
    """As many values differ as bits were flipped, each to what now stands in the file."""
    text = (d.root / d.file).read_bytes().decode("utf-8", "replace")
    if d.lost or d.added or d.tasks or len(d.changed) > most:
        return False
    moved: Counter[str] = Counter()
    for source, differ in d.changed.items():
        boxes = [b for pair in differ.values() for b in pair if isinstance(b, Boxes)]
        for aspect, (old, new) in differ.items():
            if isinstance(new, Boxes):
                first, second = _objects(old), _objects(new)
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


@dataclass(frozen=True)
class Lawful:
    """Differences that need no note, with the reason.

    Attributes:
        mutations: their names.
        readers: all where empty.
        files: regular expression that is found in the file's name.
        check: what holds for such a difference.
        reason: why nobody can see it.
    """

    mutations: tuple[str, ...]
    readers: tuple[str, ...]
    files: str
    check: Check
    reason: str


_POINTS = ("tupac16", "ocelot")
_TABLES = ("csv_table", "breastpathq", "conic", "glas", "lc25000", "pcam")
_JSONS = ("coco_boxes", "midogpp", "ocelot")
_CUTS = ("truncate table", "drop line")
_NUMBERS = ("other number", "fraction", "out of range", "negative")
_NAMES = ("absolute path", "path upwards", "far negative", "no number", "huge number")
_PICTURE = r"\.(png|jpe?g|tiff?|bmp)$"

LAWFUL: tuple[Lawful, ...] = (
    Lawful(
        *(("flip bits",), (), r"\.(jpe?g|tiff?|bmp)$", pixels),
        "these formats have no checksum",
    ),
    Lawful(
        *(("other size", "grey", "CMYK", "1 bit"), (), _PICTURE, pixels),
        "another picture is a picture",
    ),
    Lawful(("swap contents",), (), "", exchanged, "no file says which name it should bear"),
    Lawful(("delete",), (), _PICTURE, gone, "no file says how many images there are"),
    Lawful(("duplicate",), (), _PICTURE, copied, "no file says how many images there are"),
    Lawful(
        *(("delete",), ("dsb2018",), r"/masks/", union_less),
        "no file says how many masks, each of one nucleus, an image has",
    ),
    Lawful(
        *((*_CUTS, *_NUMBERS, "empty", "swap columns"), _POINTS, r"\.csv$", points),
        "a table of points has no header and states no length: any number is a place",
    ),
    Lawful(
        *((*_CUTS, *_NUMBERS, *_NAMES), _TABLES, r"\.csv$", one),
        "another valid value or another name of a patient is what the table says",
    ),
    Lawful(
        *(("JSON number", "JSON other type", "JSON drop"), _JSONS, r"\.json$", one),
        "another valid value is what the file says",
    ),
    Lawful(
        *(("delete", "rename ending"), ("lc25000", "pcam"), r"\.csv$", ungrouped),
        "the table of groups is optional",
    ),
    Lawful(("XML number",), ("monuseg",), r"\.xml$", one, "another place is what the file says"),
    Lawful(("xlsx cell label",), ("sicapv2",), "", one, "a patch may have several labels"),
    Lawful(
        *(("flip bits",), (), r"\.(csv|json|xml|npy|h5)$", few),
        "text and arrays have no checksum: another valid value is what the file says",
    ),
    Lawful(
        *(("flip bits", "JSON other type"), ("coco_boxes",), r"\.json$", renamed),
        "categories have the names that their owner gives them",
    ),
)


def reason_of(mutation: str, reader: str, difference: Difference) -> str:
    """Why a silent difference is lawful; empty where it is not."""
    for row in LAWFUL if difference.size else ():
        if (
            mutation in row.mutations
            and (not row.readers or reader in row.readers)
            and re.search(row.files, difference.file)
            and row.check(difference)
        ):
            return row.reason
    return ""
