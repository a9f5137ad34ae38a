"""What validation counted for a task: confusions, and hits and misses by score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from datamodules.records import TaskKind
from models.class_metrics import Auroc, ClassScores
from models.detection_metrics import SCORE_BINS, CentreDistanceF1
from models.scoreboard import Scoreboard
from models.tasks import TaskSpec

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class PrecisionRecall:
    """One class as the score threshold falls.

    Attributes:
        name: of the class.
        precision, recall: ascending recall, one point per score that occurs.
        average: mean precision over recall.
    """

    name: str
    precision: Counts
    recall: Counts
    average: float


@dataclass(frozen=True)
class Tally:
    """What validation counted for one task, over all ranks.

    Attributes:
        spec: the task.
        confusion: images by (true class, predicted class); None but for classification.
        names: classes that have hits and misses; empty where there are none.
        hits, misses: (classes, score bins), the lowest scores first.
        positives: images or objects of each class, (classes,).
    """

    spec: TaskSpec
    confusion: Counts | None
    names: tuple[str, ...]
    hits: Counts
    misses: Counts
    positives: Counts

    def curves(self) -> list[PrecisionRecall]:
        """Precision and recall of every class that occurs."""
        return [
            _curve(name, self.hits[i], self.misses[i], self.positives[i])
            for i, name in enumerate(self.names)
            if self.positives[i] > 0 and (self.hits[i] + self.misses[i]).any()
        ]

    def best_thresholds(self) -> list[float]:
        """Score of each class at which F1 is best; 0.5 for classes without an object."""
        hits = np.flip(np.flip(self.hits, 1).cumsum(1), 1)
        misses = np.flip(np.flip(self.misses, 1).cumsum(1), 1)
        f1 = 2 * hits / np.maximum(hits + misses + self.positives[:, None], 1)
        steps = self.hits.shape[1] - 1
        # Of equally good thresholds the highest one.
        best = steps - np.flip(f1, 1).argmax(1)
        return [float(b) / steps if f.any() else 0.5 for b, f in zip(best, f1, strict=True)]


def read_tallies(board: Scoreboard) -> list[Tally]:
    """What a scoreboard holds, before `collect` forgets it; every rank must call this.

    Tasks without anything to show (segmentation, regression, no image) are left out.
    """
    found = []
    for spec in board.specs:
        metrics = board.metrics[spec.module_name].children()
        tally = _tally(spec, [m for m in metrics if isinstance(m, Metric)])
        if tally is not None:
            found.append(tally)
    return found


def _tally(spec: TaskSpec, metrics: Iterable[Metric]) -> Tally | None:
    states = {type(metric): _summed(metric) for metric in metrics}
    confusion = states[ClassScores]["matrix"] if ClassScores in states else None
    names: tuple[str, ...] = ()
    hits = misses = np.zeros((0, SCORE_BINS + 1))
    positives = np.zeros(0)
    if CentreDistanceF1 in states:
        counted = states[CentreDistanceF1]
        names, positives = spec.task.classes, counted["objects"]
        hits, misses = counted["hits"], counted["misses"]
    elif Auroc in states:
        shown = _shown_classes(spec)
        counts = states[Auroc]["counts"][shown]
        names = tuple(spec.task.classes[i] for i in shown)
        misses, hits = counts[:, 0], counts[:, 1]
        positives = hits.sum(1)
    tally = Tally(spec, confusion, names, hits, misses, positives)
    seen = (confusion is not None and confusion.any()) or positives.any() or misses.any()
    return tally if seen else None


def _shown_classes(spec: TaskSpec) -> list[int]:
    """The positive one of two classes; else each class or label against all others."""
    classes = spec.task.classes
    if spec.task.kind is TaskKind.MULTILABEL or len(classes) != 2:
        return list(range(len(classes)))
    return [classes.index(spec.task.positive) if spec.task.positive else 1]


def _summed(metric: Metric) -> dict[str, Counts]:
    """The metric's sums over all ranks."""
    with metric.sync_context():
        states: dict[str, Any] = {name: getattr(metric, name) for name in metric._defaults}
        return {
            name: value.detach().double().cpu().numpy().copy()
            for name, value in states.items()
            if isinstance(value, Tensor)
        }


def _curve(name: str, hits: Counts, misses: Counts, positives: float) -> PrecisionRecall:
    occurs = np.flip(hits + misses) > 0
    true, false = np.flip(hits).cumsum()[occurs], np.flip(misses).cumsum()[occurs]
    precision, recall = true / (true + false), true / positives
    average = float((np.diff(recall, prepend=0) * precision).sum())
    return PrecisionRecall(name, precision, recall, average)
