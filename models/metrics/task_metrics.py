"""The metrics of all tasks of a run, and the one number that sums them up."""

from __future__ import annotations

import math
import warnings
from collections.abc import Container, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from datamodules.core.records import Task, TaskKind
from datamodules.stream.batch import BatchTarget
from models.metrics.classification import Auroc, ClassScores, LabelScores, PixelScores
from models.metrics.detection import BoxAveragePrecision, CentreDistanceF1
from models.network.heads import Prediction
from models.tasks import TaskSpec

SUMMARY = {
    TaskKind.CLASSIFICATION: "f1_macro",
    TaskKind.MULTILABEL: "f1_macro",
    TaskKind.SEGMENTATION: "dice",
    TaskKind.DETECTION: "f1_best",
    TaskKind.REGRESSION: "r2",
}
"""The metric that represents a task. For all of them higher is better and 1 is perfect."""


class TaskMetrics(nn.Module):
    """Collects predictions of all tasks, the same on every rank, and scores them once per epoch.

    With `final`, COCO's average precision is added, which keeps every box.
    """

    def __init__(self, specs: Sequence[TaskSpec], final: bool = False) -> None:
        super().__init__()
        self.specs = list(specs)
        self.metrics = nn.ModuleDict()
        for spec in specs:
            metrics = make_metrics(spec.task, spec.mpp)
            if final and spec.task.kind is TaskKind.DETECTION:
                metrics.append(BoxAveragePrecision())
            self.metrics[spec.module_name] = nn.ModuleList(metrics)

    def of(self, spec: TaskSpec) -> list[Metric]:
        """Return the metrics of a task."""
        return [m for m in self.metrics[spec.module_name].children() if isinstance(m, Metric)]

    def update(
        self, spec: TaskSpec, prediction: Prediction, target: BatchTarget, valid: int
    ) -> None:
        """Add a prediction of the first `valid` images; the target may hold more."""
        kept = target[:valid] if isinstance(target, Tensor) else target.head(valid)
        for metric in self.of(spec):
            metric.update(prediction, kept)

    def take_thresholds(self, chosen: TaskMetrics, datasets: Container[str]) -> None:
        """Score detection at the thresholds that are best on other images, then reset those.

        `chosen` has seen the other images, of all ranks. Tasks of other datasets than these choose
        for themselves.
        """
        for spec in self.specs:
            for own, other in zip(self.of(spec), chosen.of(spec), strict=False):
                if isinstance(own, CentreDistanceF1) and isinstance(other, CentreDistanceF1):
                    other.compute()
                    own.fixed = other.best if spec.dataset in datasets else None
        chosen.collect()

    def collect(self) -> tuple[dict[str, float], float | None]:
        """Score all images of all ranks, then reset.

        Returns:
            Scores by "dataset/task/metric", without those that the images do not define; and the
            mean over tasks of their representative metrics (R2 not below 0), if any is defined.
        """
        scores: dict[str, float] = {}
        summary: list[float] = []
        for spec in self.specs:
            values: dict[str, float] = {}
            for metric in self.of(spec):
                with warnings.catch_warnings():
                    # A dataset without validation images: its scores are undefined.
                    warnings.filterwarnings("ignore", ".*before the ``update`` method.*")
                    values |= {name: float(value) for name, value in metric.compute().items()}
                metric.reset()
            scores |= {f"{spec.key}/{n}": v for n, v in values.items() if math.isfinite(v)}
            value = values[SUMMARY[spec.task.kind]]
            if math.isfinite(value):
                summary.append(max(0.0, value) if spec.task.kind is TaskKind.REGRESSION else value)
        return scores, sum(summary) / len(summary) if summary else None


def make_metrics(task: Task, mpp: float) -> list[Metric]:
    """Return the metrics of a task at `mpp` µm/px; `compute()` of each gives scalars by name."""
    classes, positive = max(len(task.classes), 2), -1
    if task.positive is not None and (len(task.classes) == 2 or task.kind is TaskKind.DETECTION):
        positive = task.classes.index(task.positive)
    match task.kind:
        case TaskKind.CLASSIFICATION:
            return [ClassScores(classes, positive), Auroc(classes)]
        case TaskKind.MULTILABEL:
            labels = len(task.classes)
            return [LabelScores(labels), Auroc(labels, multilabel=True)]
        case TaskKind.SEGMENTATION:
            return [PixelScores(classes, task.ignore_index)]
        case TaskKind.DETECTION:
            distance = task.match_distance_um / mpp
            return [CentreDistanceF1(len(task.classes), distance, positive)]
        case TaskKind.REGRESSION:
            return [RegressionScores(((task.low or 0.0) + (task.high or 0.0)) / 2)]


class RegressionScores(Metric):
    """Mean absolute error, mean squared error and R2; NaN where the images do not define them.

    `middle` is near the targets and subtracted before squares are added up in float32.
    """

    sums: Tensor

    def __init__(self, middle: float = 0.0) -> None:
        super().__init__()
        self.middle = middle
        self.add_state("sums", torch.zeros(5), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add predicted and true values, both (n,)."""
        error, value = predicted.float() - target.float(), target.float() - self.middle
        rows = [torch.ones_like(value), error.abs(), error.square(), value, value.square()]
        self.sums += torch.stack(rows).sum(1)

    def compute(self) -> dict[str, Tensor]:
        """Return errors in the target's unit, and R2 (NaN where all targets are equal)."""
        n, absolute, squared, value, value_squared = self.sums
        spread = value_squared - value.square() / n
        r2 = torch.where(spread > 1e-6 * value_squared, 1 - squared / spread, torch.nan)
        return {"mae": absolute / n, "mse": squared / n, "r2": r2}
