"""The metrics of all tasks of a run, and the one number that sums them up."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from torch import Tensor, nn
from torchmetrics import Metric

from datamodules.core.records import TaskKind
from datamodules.stream.batch import BatchTarget
from models.metrics.detection import BoxAveragePrecision
from models.metrics.metrics import make_metrics, summary_name
from models.network.heads import Prediction
from models.tasks import TaskSpec


class Scoreboard(nn.Module):
    """Collects predictions of all tasks and scores them once per epoch.

    Args:
        specs: all tasks, the same on every rank.
        final: also compute what needs every box kept (COCO's average precision).
    """

    def __init__(self, specs: Sequence[TaskSpec], final: bool = False) -> None:
        super().__init__()
        self.specs = list(specs)
        self.metrics = nn.ModuleDict()
        for spec in specs:
            chosen = make_metrics(spec.task, spec.mpp)
            if final and spec.task.kind is TaskKind.DETECTION:
                chosen.append(BoxAveragePrecision())
            self.metrics[spec.module_name] = nn.ModuleList(chosen)

    def update(
        self, spec: TaskSpec, prediction: Prediction, target: BatchTarget, valid: int
    ) -> None:
        """Take in a batch.

        Args:
            spec: the task.
            prediction: of the first `valid` images.
            target: of all images of the part.
            valid: how many images count.
        """
        kept = target[:valid] if isinstance(target, Tensor) else target.head(valid)
        for metric in self._of(spec):
            metric.update(prediction, kept)

    def collect(self) -> tuple[dict[str, float], float | None]:
        """All scores over all ranks, then forget.

        Returns:
            Scores by "dataset/task/metric", without those that the images do not define; and the
            mean over tasks of the number that stands for each (R2 not below 0), if there is any.
        """
        scores: dict[str, float] = {}
        summary: list[float] = []
        for spec in self.specs:
            mine: dict[str, float] = {}
            for metric in self._of(spec):
                with warnings.catch_warnings():
                    # A dataset without validation images: its scores are undefined.
                    warnings.filterwarnings("ignore", ".*before the ``update`` method.*")
                    values = metric.compute()
                metric.reset()
                mine |= {name: float(value) for name, value in values.items()}
            scores |= {f"{spec.key}/{n}": v for n, v in mine.items() if math.isfinite(v)}
            value = mine[summary_name(spec.task)]
            if math.isfinite(value):
                free = spec.task.kind is TaskKind.REGRESSION
                summary.append(max(0.0, value) if free else value)
        return scores, sum(summary) / len(summary) if summary else None

    def _of(self, spec: TaskSpec) -> list[Metric]:
        return [m for m in self.metrics[spec.module_name].children() if isinstance(m, Metric)]
