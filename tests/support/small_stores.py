"""Small stores with every kind of task, written without any dataset behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datamodules.core.records import Boxes, Record, Task, TaskKind
from datamodules.store.reader import Store
from datamodules.store.tiling import Patch
from datamodules.store.writer import write_store

TASKS = (
    Task("kind", TaskKind.CLASSIFICATION, ("a", "b", "c")),
    Task("score", TaskKind.REGRESSION, low=0.0, high=1.0),
    Task("signs", TaskKind.MULTILABEL, ("x", "y", "z", "w")),
    Task("area", TaskKind.SEGMENTATION, ("background", "object")),
    Task("objects", TaskKind.DETECTION, ("cell", "mitosis")),
)


def make_patch(number: int, side: int) -> Patch:
    """Patch `number`: random pixels, with targets that only this number has."""
    rng = np.random.default_rng((side, number))
    low = rng.uniform(0, side / 2, (number % 4, 2))
    xyxy = np.concatenate([low, low + rng.uniform(side / 8, side / 2, low.shape)], axis=1)
    targets = {
        "kind": number % 3,
        "score": float(rng.random()),
        "signs": rng.integers(0, 2, 4).astype(np.uint8),
        "area": rng.integers(0, 2, (side, side)).astype(np.uint8),
        "objects": Boxes(xyxy.astype(np.float32), rng.integers(0, 2, len(low)).astype(np.int64)),
    }
    image = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    return Patch(image, targets, x=number, y=2 * number, mpp=0.5)


def make_record(number: int) -> Record:
    """The record that patch `number` was cut from."""
    split = ("train", "train", "train", "val", "test")[number % 5]
    return Record(f"images/{number}.png", Path("unused.png"), {}, split, f"patient {number // 3}")


def small_store(path: Path, count: int = 10, side: int = 16, compressed: bool = False) -> Store:
    """A finished store of `count` patches."""
    attributes = {"name": path.stem, "synthetic": True, "settings": "{}", "fingerprint": ""}
    with write_store(path, TASKS, side, attributes, compressed) as writer:
        for number in range(count):
            writer.add(make_record(number), [make_patch(number, side)])
    return Store(path)


def sums_of(store: Store, rows: list[int]) -> list[int]:
    """Sum of the pixels of some patches; what another process is asked for."""
    return [int(image.sum()) for image in store.images(rows)]


def write_forever(path: Path) -> None:
    """Write patches until this process is killed."""
    with write_store(path, TASKS, 64, {"synthetic": True}) as writer:
        number = 0
        while True:
            writer.add(make_record(number), [make_patch(number, 64)])
            number += 1
