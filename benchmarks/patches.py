"""Patches for the benchmarks: forged tissue in stores and in the forms that peers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.config import AugmentationConfig, DataConfig, DatasetConfig
from datamodules.core.records import Boxes, Record, Task, TaskKind
from datamodules.registry import build
from datamodules.store.reader import Store
from datamodules.store.tiling import Patch
from datamodules.store.writer import write_store
from datamodules.stream.loading import StoreView
from datamodules.stream.transforms import Transform
from datamodules.synthetic.forge import forge

SIDE, SIZE, BOXES = 256, 224, 40
GLOBAL = (Task("kind", TaskKind.CLASSIFICATION, ("a", "b")),)
DENSE = (
    Task("mask", TaskKind.SEGMENTATION, ("a", "b", "c", "d")),
    Task("cells", TaskKind.DETECTION, ("a", "b")),
)


def tissue(folder: Path, count: int) -> list[np.ndarray]:
    """Patches of forged tissue of 256 px, cut anew at random places."""
    data = DataConfig(str(folder / "published"), str(folder / "stores"))
    dataset = build("monuseg", DatasetConfig(), data)
    forge(dataset, 0, 8)
    paths = sorted(dataset.root.rglob("*.tif"))
    fields = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        field = fields[number % len(fields)]
        y, x = (int(rng.integers(side - SIDE + 1)) for side in field.shape[:2])
        found.append(np.ascontiguousarray(field[y : y + SIDE, x : x + SIDE]))
    return found


def targets(number: int) -> dict[TaskKind, Any]:
    """A class, a mask of blocks, and 40 boxes."""
    rng = np.random.default_rng(number)
    corner = rng.uniform(0, SIDE - 24, (BOXES, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(8, 24, (BOXES, 2))], 1)
    mask = np.kron(rng.integers(0, 4, (16, 16)), np.ones((16, 16))).astype(np.uint8)
    objects = Boxes(boxes.astype(np.float32), rng.integers(0, 2, BOXES))
    return {
        TaskKind.CLASSIFICATION: number % 2,
        TaskKind.SEGMENTATION: mask,
        TaskKind.DETECTION: objects,
    }


def view(folder: Path, name: str, tasks: tuple[Task, ...], images: list[np.ndarray]) -> StoreView:
    """A store of these patches, with the augmentation of training."""
    path = folder / f"{name}.h5"
    attributes = {"name": name, "synthetic": True, "settings": "{}", "fingerprint": ""}
    with write_store(path, tasks, SIDE, attributes) as writer:
        for number, image in enumerate(images):
            mine = {task.name: targets(number)[task.kind] for task in tasks}
            record = Record(f"{number}.png", path, {}, "train", f"patient {number}")
            writer.add(record, [Patch(image, mine, 0, 0, mpp=0.5)])
    transform = Transform(SIZE, tasks, AugmentationConfig())
    return StoreView(name, Store(path), np.arange(len(images)), transform)
