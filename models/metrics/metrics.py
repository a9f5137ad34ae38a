"""Metrics per task, with states that are sums: small, and safe however ranks share the images.

A value that the images do not define (one class only, no object, one number) is NaN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from datamodules.core.records import Task, TaskKind
from models.metrics.classification import Auroc, ClassScores, LabelScores, confusion
from models.metrics.detection import CentreDistanceF1

SUMMARY = {
    TaskKind.CLASSIFICATION: "f1_macro",
    TaskKind.MULTILABEL: "f1_macro",
    TaskKind.SEGMENTATION: "dice",
    TaskKind.DETECTION: "f1_best",
    TaskKind.REGRESSION: "r2",
}
"""The one number that stands for a task. All: higher is better, 1 is perfect."""


def summary_name(task: Task) -> str:
    """Name of the number that represents a task."""
    return SUMMARY[task.kind]


def make_metrics(task: Task, mpp: float) -> list[Metric]:
    """The metrics of a task; `compute()` of each gives a dictionary of scalars.

    Args:
        task: what is measured.
        mpp: um per pixel of the network input.
    """
    classes = max(len(task.classes), 2)
    match task.kind:
        case TaskKind.CLASSIFICATION:
            positive = -1
            if task.positive is not None and len(task.classes) == 2:
                positive = task.classes.index(task.positive)
            return [ClassScores(classes, positive), Auroc(classes)]
        case TaskKind.MULTILABEL:
            labels = len(task.classes)
            return [LabelScores(labels), Auroc(labels, multilabel=True)]
        case TaskKind.SEGMENTATION:
            return [PixelScores(classes, task.ignore_index)]
        case TaskKind.DETECTION:
            return [CentreDistanceF1(len(task.classes), task.match_distance_um / mpp)]
        case TaskKind.REGRESSION:
            return [RegressionScores(((task.low or 0.0) + (task.high or 0.0)) / 2)]


class PixelScores(Metric):
    """Dice and IoU over all pixels, averaged over the classes that occur.

    Args:
        classes: number of classes.
        ignore_index: pixels of this value do not count.
        settings: of `torchmetrics.Metric`.
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, classes: int, ignore_index: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.classes = classes
        self.ignore_index = ignore_index
        # Pixels of a large validation set overflow the 24 bits of float32; int64 does not.
        zeros = torch.zeros(classes, classes, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count.

        Args:
            predicted: int64 (n, height, width).
            target: int64 (n, height, width).
        """
        keep = target != self.ignore_index
        self.matrix += confusion(predicted[keep], target[keep], self.classes)

    def compute(self) -> dict[str, Tensor]:
        """Scores in [0, 1]."""
        hits = self.matrix.diagonal().float()
        truth, found = self.matrix.sum(1).float(), self.matrix.sum(0).float()
        return {
            "dice": (2 * hits / (truth + found)).nanmean(),
            "miou": (hits / (truth + found - hits)).nanmean(),
        }


class RegressionScores(Metric):
    """Mean absolute error, mean squared error and R2.

    Args:
        middle: a value near the targets, subtracted before squares are added up in float32.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, middle: float = 0.0) -> None:
        super().__init__()
        self.middle = middle
        self.add_state("sums", torch.zeros(5), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add up.

        Args:
            predicted: float (n,).
            target: float (n,).
        """
        error, value = predicted.float() - target.float(), target.float() - self.middle
        rows = [torch.ones_like(value), error.abs(), error.square(), value, value.square()]
        self.sums += torch.stack(rows).sum(1)

    def compute(self) -> dict[str, Tensor]:
        """Errors in the target's unit, and R2 (NaN where all targets are equal)."""
        n, absolute, squared, value, value_squared = self.sums
        spread = value_squared - value.square() / n
        r2 = torch.where(spread > 1e-6 * value_squared, 1 - squared / spread, torch.nan)
        return {"mae": absolute / n, "mse": squared / n, "r2": r2}
