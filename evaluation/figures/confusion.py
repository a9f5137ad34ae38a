"""What validation counted for a task: confusions, and hits and misses by score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from datamodules.core.records import TaskKind
from evaluation.figures.canvas import new_figure, style
from evaluation.figures.palette import MUTED, SLOTS
from models.metrics.classification import Auroc, ClassScores
from models.metrics.detection import SCORE_BINS, CentreDistanceF1
from models.metrics.task_metrics import TaskMetrics
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


def read_tallies(board: TaskMetrics) -> list[Tally]:
    """What the metrics hold, before `collect` forgets it; every rank must call this.

    Tasks without anything to show (segmentation, regression, no image) are left out.
    """
    found = []
    for spec in board.specs:
        tally = _tally(spec, board.of(spec))
        if tally is not None:
            found.append(tally)
    return found


def _tally(spec: TaskSpec, metrics: Iterable[Metric]) -> Tally | None:
    states = {type(metric): _summed(metric) for metric in metrics}
    confusion = states[ClassScores]["confmat"] if ClassScores in states else None
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


_CURVES = 12  # more classes than that are drawn, but not named


def confusion_figure(tally: Tally, matrix: Counts, note: str = "") -> Figure:
    """Images by true class (rows) and predicted class; shades are shares of the row.

    Args:
        tally: whose task names the classes.
        matrix: (classes, classes).
        note: appended to the title.
    """
    classes = tally.spec.task.classes
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = 1.6 + 0.42 * len(classes)
    with style():
        figure = new_figure(max(side + 0.8, 3.6), max(side, 2.6))
        axes = figure.add_subplot()
        axes.grid(False)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                dark = share[row, column] > 0.55
                axes.text(
                    *(column, row, f"{count:.0f}"),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="white" if dark else "black",
                )
        ticks = np.arange(len(classes))
        axes.set_xticks(ticks, classes, rotation=45, ha="right", fontsize=8, parse_math=False)
        axes.set_yticks(ticks, classes, fontsize=8, parse_math=False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(f"{tally.spec.key}{note}", loc="left", fontsize=9.5, parse_math=False)
        return figure


def precision_recall_figure(tally: Tally, note: str = "") -> Figure:
    """Precision against recall, one line per class."""
    with style():
        figure = new_figure(4.3, 3.0)
        axes = figure.add_subplot()
        curves = tally.curves()
        for number, curve in enumerate(curves):
            _, colour, _, marker = SLOTS[number % len(SLOTS)]
            axes.plot(
                curve.recall,
                curve.precision,
                color=colour,
                marker=marker,
                markersize=4,
                markevery=max(1, len(curve.recall) // 8),
                lw=1.6,
                label=f"{curve.name}: average {curve.average:.3f}",
            )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision", color=MUTED)
        axes.set_title(f"{tally.spec.key}{note}", loc="left", fontsize=9.5, parse_math=False)
        if len(curves) <= _CURVES:
            axes.legend(frameon=False, fontsize=8)
        return figure


def describe_confusion(tally: Tally, matrix: Counts) -> str:
    """The matrix in words, for those who do not see it."""
    classes = tally.spec.task.classes
    rows = [
        f"{name}: {row[i]:.0f} of {row.sum():.0f} right"
        + "".join(
            f", {count:.0f} taken for {classes[other]}"
            for other, count in enumerate(row)
            if count and other != i
        )
        for i, (name, row) in enumerate(zip(classes, matrix, strict=True))
        if row.sum()
    ]
    return f"Confusion matrix. {'. '.join(rows)}."


def describe_recall(tally: Tally) -> str:
    """The curves in words, for those who do not see them."""
    lines = [f"{curve.name} {curve.average:.3f}" for curve in tally.curves()]
    return f"Precision against recall. Average precision: {', '.join(lines)}."
