"""What validation counted for a task, as confusion matrix and precision-recall curves."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from datamodules.core.records import TaskKind
from evaluation.figures.canvas import CENTRED, MUTED, SLOTS, Drawing, new_figure, style
from evaluation.run_files import CONFUSION, RECALL
from models.metrics.classification import Auroc, ClassScores
from models.metrics.detection import SCORE_BINS, CentreDistanceF1
from models.metrics.task_metrics import TaskMetrics
from models.tasks import TaskSpec

Floats = NDArray[np.float64]

NAMED_CURVES = 12  # more classes are drawn, but not listed in the legend


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall of one class, one point per score that occurs, with ascending recall."""

    name: str
    precision: Floats
    recall: Floats
    average: float  # mean precision over recall


@dataclass(frozen=True)
class ConfusionCounts:
    """What validation counted for one task, over all ranks."""

    spec: TaskSpec
    confusion: Floats | None  # (true class, predicted class); None unless a classification
    names: tuple[str, ...]  # classes with hits and misses
    hits: Floats  # (classes, score bins), the lowest scores first
    misses: Floats  # (classes, score bins)
    positives: Floats  # images or objects of each class, (classes,)

    def curves(self) -> list[PrecisionRecall]:
        """Return precision and recall of every class that occurs."""
        return [
            _curve(name, self.hits[i], self.misses[i], self.positives[i])
            for i, name in enumerate(self.names)
            if self.positives[i] > 0 and (self.hits[i] + self.misses[i]).any()
        ]

    def best_thresholds(self) -> list[float]:
        """Return the score at which F1 is best for each class; 0.5 without an object."""
        hits = np.flip(np.flip(self.hits, 1).cumsum(1), 1)
        misses = np.flip(np.flip(self.misses, 1).cumsum(1), 1)
        f1 = 2 * hits / np.maximum(hits + misses + self.positives[:, None], 1)
        steps = self.hits.shape[1] - 1
        best = steps - np.flip(f1, 1).argmax(1)  # of equally good thresholds the highest
        return [float(b) / steps if f.any() else 0.5 for b, f in zip(best, f1, strict=True)]


def read_counts(metrics: TaskMetrics) -> list[ConfusionCounts]:
    """Return the counts of all tasks before `collect` resets them; every rank must call this.

    Tasks without counts (segmentation, regression, no image) are left out.
    """
    counts = []
    for spec in metrics.specs:
        one = _counts(spec, {type(metric): _summed(metric) for metric in metrics.of(spec)})
        seen = one.confusion is not None and one.confusion.any()
        if seen or one.positives.any() or one.misses.any():
            counts.append(one)
    return counts


def _counts(spec: TaskSpec, states: dict[type[Metric], dict[str, Floats]]) -> ConfusionCounts:
    confusion = states[ClassScores]["confmat"] if ClassScores in states else None
    classes = spec.task.classes
    if CentreDistanceF1 in states:
        parts = (states[CentreDistanceF1][name] for name in ("hits", "misses", "objects"))
        return ConfusionCounts(spec, confusion, classes, *parts)
    if Auroc not in states:
        none = np.zeros((0, SCORE_BINS + 1))
        return ConfusionCounts(spec, confusion, (), none, none, np.zeros(0))
    shown = list(range(len(classes)))
    if spec.task.kind is not TaskKind.MULTILABEL and len(classes) == 2:  # the positive one
        shown = [classes.index(spec.task.positive) if spec.task.positive else 1]
    misses, hits = np.moveaxis(states[Auroc]["counts"][shown], 1, 0)
    names = tuple(classes[i] for i in shown)
    return ConfusionCounts(spec, confusion, names, hits, misses, hits.sum(1))


def _summed(metric: Metric) -> dict[str, Floats]:
    """Return the metric's sums over all ranks."""
    with metric.sync_context():
        states = ((name, getattr(metric, name)) for name in metric._defaults)
        return {
            name: value.detach().double().cpu().numpy().copy()
            for name, value in states
            if isinstance(value, Tensor)
        }


def _curve(name: str, hits: Floats, misses: Floats, positives: float) -> PrecisionRecall:
    occurs = np.flip(hits + misses) > 0
    true, false = np.flip(hits).cumsum()[occurs], np.flip(misses).cumsum()[occurs]
    precision, recall = true / (true + false), true / positives
    average = float((np.diff(recall, prepend=0) * precision).sum())
    return PrecisionRecall(name, precision, recall, average)


def count_drawings(counts: ConfusionCounts, synthetic: bool) -> list[Drawing]:
    """Draw a task's confusion matrix and precision-recall curves, as far as there are any."""
    spec = counts.spec
    name, title = f"{spec.dataset}-{spec.task.name}", spec.key.replace("/", ": ")
    note = f"{spec.key}, validation" + (" - SYNTHETIC TISSUE" if synthetic else "")
    drawings = []
    if counts.confusion is not None:
        figure = confusion_figure(counts.confusion, spec.task.classes, note)
        text = describe_confusion(counts.confusion, spec.task.classes)
        drawings.append(Drawing(f"{name}-{CONFUSION}", figure, title, text))
    if curves := counts.curves():
        averages = ", ".join(f"{curve.name} {curve.average:.3f}" for curve in curves)
        text = f"Precision against recall. Average precision: {averages}."
        drawings.append(Drawing(f"{name}-{RECALL}", recall_figure(curves, note), title, text))
    return drawings


@style()
def confusion_figure(matrix: Floats, classes: tuple[str, ...], title: str) -> Figure:
    """Draw images by true class (rows) and predicted class; shades are shares of the row."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = 1.6 + 0.42 * len(classes)
    figure = new_figure(max(side + 0.8, 3.6), max(side, 2.6))
    axes = figure.add_subplot()
    axes.grid(False)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if share[row, column] > 0.55 else "black"
            axes.text(column, row, f"{count:.0f}", color=colour, fontsize=7.5, **CENTRED)
    ticks = np.arange(len(classes))
    axes.set_xticks(ticks, classes, rotation=45, ha="right", fontsize=8, parse_math=False)
    axes.set_yticks(ticks, classes, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, loc="left", fontsize=9.5, parse_math=False)
    return figure


@style()
def recall_figure(curves: list[PrecisionRecall], title: str) -> Figure:
    """Draw precision against recall, one line per class."""
    figure = new_figure(4.3, 3.0)
    axes = figure.add_subplot()
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
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall")
    axes.set_ylabel("precision", color=MUTED)
    axes.set_title(title, loc="left", fontsize=9.5, parse_math=False)
    if len(curves) <= NAMED_CURVES:
        axes.legend(frameon=False, fontsize=8)
    return figure


def describe_confusion(matrix: Floats, classes: tuple[str, ...]) -> str:
    """Describe a confusion matrix in words."""
    rows = []
    for i, (name, row) in enumerate(zip(classes, matrix, strict=True)):
        text = f"{name}: {row[i]:.0f} of {row.sum():.0f} right"
        for j in np.flatnonzero(row):
            text += f", {row[j]:.0f} taken for {classes[j]}" if j != i else ""
        if row.any():
            rows.append(text)
    return f"Confusion matrix. {'. '.join(rows)}."
