"""Small micro-batches of every task kind, drawn from one seed, for tests of the models."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from datamodules.core.records import Task, TaskKind
from datamodules.stream.batch import BatchTarget, DetectionTarget, MultiTaskBatch, Part
from models.config import ModelConfig, OptimConfig
from models.tasks import TaskSpec

SIZE = 64

TASKS = {
    "organ": (Task("class", TaskKind.CLASSIFICATION, ("benign", "tumour"), positive="tumour"),),
    "nuclei": (
        Task("mask", TaskKind.SEGMENTATION, ("background", "nucleus")),
        Task("box", TaskKind.DETECTION, ("lymphocyte", "tumour"), object_size_um=8.0),
    ),
    "grade": (Task("score", TaskKind.REGRESSION, low=0.0, high=1.0),),
    "traits": (Task("labels", TaskKind.MULTILABEL, ("necrosis", "mucin", "fat")),),
}
SPECS = [TaskSpec(name, task, 0.5) for name, tasks in TASKS.items() for task in tasks]


def tiny_model(**changes) -> ModelConfig:
    settings = {"encoder": "test_convnext", "weights": "random", "neck_channels": 32, **changes}
    return ModelConfig(**settings)


def optim(**changes) -> OptimConfig:
    return OptimConfig(**changes)


def draw_boxes(images: int, g: torch.Generator, classes: int = 2) -> DetectionTarget:
    """Two objects of 16 px per image, in opposite corners."""
    corner = torch.randint(0, 8, (images, 2, 2), generator=g) + torch.tensor([[4], [36]])
    corner = corner.float().view(-1, 2)
    return DetectionTarget(
        torch.cat([corner, corner + 16], 1),
        torch.randint(0, classes, (2 * images,), generator=g),
        torch.arange(images).repeat_interleave(2),
    )


def draw_target(task: Task, images: int, g: torch.Generator) -> BatchTarget:
    classes = len(task.classes)
    match task.kind:
        case TaskKind.CLASSIFICATION:
            return torch.randint(0, classes, (images,), generator=g)
        case TaskKind.MULTILABEL:
            return torch.randint(0, 2, (images, classes), generator=g).float()
        case TaskKind.REGRESSION:
            return torch.rand(images, generator=g)
        case TaskKind.SEGMENTATION:
            blocks = torch.randint(0, classes, (images, 1, SIZE // 16, SIZE // 16), generator=g)
            return torch.nn.functional.interpolate(blocks.float(), SIZE)[:, 0].long()
        case TaskKind.DETECTION:
            return draw_boxes(images, g, classes)


def draw(
    datasets: Sequence[str] = tuple(TASKS), images: int = 2, seed: int = 0, step: int = 0
) -> MultiTaskBatch:
    """A micro-batch; a dataset's images and targets do not depend on the other datasets."""
    parts, pixels, start = [], [], 0
    for name in datasets:
        g = torch.Generator().manual_seed(1000 * seed + list(TASKS).index(name))
        targets = {task.name: draw_target(task, images, g) for task in TASKS[name]}
        pixels.append(torch.randint(0, 256, (images, SIZE, SIZE, 3), generator=g))
        stop = start + images
        parts.append(Part(name, start, stop, targets, torch.arange(images), images))
        start = stop
    return MultiTaskBatch(torch.cat(pixels).to(torch.uint8), parts, step)
