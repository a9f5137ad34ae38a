"""Loading: one loader process against its parts and against a plain pipeline (goals b, c, d)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.patches import DENSE, GLOBAL, SIZE, tissue, view
from benchmarks.timing import Rows, rates, ratio, row, seconds
from datamodules.stream.loading import StoreView, collate, make_loader
from datamodules.stream.sampling import Stream, TrainSampler

BATCH = 32
PASSES = 4  # over the patches in each round, so that its start hardly counts


def measure(folder: Path, count: int = 320, rounds: int = 5) -> Rows:
    """Rates of loading patches."""
    torch.set_num_threads(1)
    images = tissue(folder, count)
    rows = []
    for name, tasks in (("classification", GLOBAL), ("mask and 40 boxes", DENSE)):
        source = view(folder, name.split()[0], tasks, images)
        ways = {"loader": whole(source, count), "parts": in_parts(source, count)}
        times = seconds(ways | {"old": before(source)}, rounds)
        found = rates(times, PASSES * count)
        of_parts = ratio(times, "loader", "parts")
        rows += [
            row("b", f"loader of one process against its parts, {name}", of_parts, 0.9),
            row("c", f"against the former steps on the CPU, {name}", ratio(times, "parts", "old"),
                1.8, per_second=found),
        ]  # fmt: skip
        if tasks is GLOBAL:
            (pngs := folder / "pngs").mkdir()
            for number, image in enumerate(images):
                Image.fromarray(image).save(pngs / f"{number}.png", compress_level=1)
            plain = DataLoader(PlainDataset(pngs, count), BATCH, num_workers=1)
            ways |= {"plain": lambda one=plain: list(one)}
            times = seconds({name: ways[name] for name in ("loader", "plain")}, 2)
            what = "loader against a PNG folder, albumentations with HEStain, float collate"
            rows.append(row("d", what, PASSES * ratio(times, "loader", "plain"), 6.0))
    return rows


def whole(source: StoreView, count: int) -> Any:
    """All patches through one process that goes on between the rounds."""
    position = [0]
    stream = Stream((count,), (BATCH,), 1, 0)
    sampler = TrainSampler(stream, PASSES * count // BATCH, lambda: position[0])
    loader = make_loader([source], sampler, SIZE, 1)
    return lambda: [batch.images.shape for batch in loader]


def in_parts(source: StoreView, count: int) -> Any:
    """What a loader has to do, in this process: read, transform, collect."""

    def run() -> None:
        for start in PASSES * list(range(0, count, BATCH)):
            index = np.arange(start, start + BATCH)
            images, targets = source.store.images(index), source.store.targets_of(index)
            out = np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
            for place in range(BATCH):
                changed = source.transform(images[place], targets[place], int(index[place]))
                out[place], targets[place] = changed
            for task in source.store.tasks:
                collate(task, [of[task.name] for of in targets])

    return run


def before(source: StoreView) -> Any:
    """The same parts with the pipeline of the project's first version: all colours on the CPU."""
    span = (0.8, 1.2)
    dense = source.store.tasks == DENSE
    pipeline = A.Compose(
        [
            A.RandomResizedCrop((SIZE, SIZE), (0.5, 1.0), (0.9, 1.1), area_for_downscale="image",
                                mask_interpolation=cv2.INTER_NEAREST_EXACT),
            A.D4(p=1.0),
            A.ColorJitter(brightness=span, contrast=span, saturation=span, hue=(-0.05, 0.05),
                          p=0.8),
            A.GaussianBlur(blur_limit=(3, 5), p=0.1),
        ],
        A.BboxParams("pascal_voc", ["label"], min_visibility=0.4, clip=True) if dense else None,
    )  # fmt: skip

    def run() -> None:
        for start in PASSES * list(range(0, len(source), BATCH)):
            index = np.arange(start, start + BATCH)
            images, targets = source.store.images(index), source.store.targets_of(index)
            out = np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
            masks = []
            for place in range(BATCH):
                given: dict[str, Any] = {"image": images[place]}
                if dense:
                    boxes = targets[place]["cells"]
                    given |= {"masks": [targets[place]["mask"]], "bboxes": boxes.xyxy,
                              "label": boxes.labels}  # fmt: skip
                pipeline.set_random_seed(int(index[place]))
                result = pipeline(**given)
                out[place] = result["image"]
                masks += result.get("masks", [])
            if dense:
                torch.from_numpy(np.stack(masks)).long()

    return run


class PlainDataset(Dataset[Any]):
    """What one would write: PNG files, all steps on the CPU, floats."""

    def __init__(self, folder: Path, count: int) -> None:
        self.paths = [folder / f"{number}.png" for number in range(count)]
        self.steps = A.Compose(
            [
                A.RandomResizedCrop((SIZE, SIZE), (0.5, 1.0), (0.9, 1.1)),
                A.D4(p=1.0),
                A.ColorJitter((0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.05, 0.05), p=0.8),
                A.GaussianBlur(blur_limit=(3, 5), p=0.1),
                A.HEStain(p=0.5),
                A.Normalize(),
                A.ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = np.asarray(Image.open(self.paths[index]).convert("RGB"))
        return self.steps(image=image)["image"], index % 2
