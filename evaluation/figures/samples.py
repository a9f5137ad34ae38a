"""Predictions beside the truth on a few validation images of one task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from datamodules.core.records import TaskKind
from datamodules.display.overlays import DENSE, class_colours, draw_boxes, show_patch
from datamodules.stream.batch import BatchTarget, DetectionTarget
from evaluation.figures.canvas import INK, Drawing, clear, new_figure, write_below
from models.metrics.classification import PixelScores
from models.metrics.detection import match_detections
from models.network.detection_grid import Detections
from models.network.heads import Prediction
from models.tasks import TaskSpec

# Apart by at least 65 in CIELAB for every kind of dichromacy, and by their line styles.
HIT, MISSED, FALSE = ("#00e5ff", "-"), ("#ffe600", "--"), ("#000000", ":")
_LEGEND = "#c8a0c0"  # its background: near the tissue's colour, on which all outlines are visible
_INCHES = 2.1  # side of an image
_COLUMNS = 3  # images in a row where nothing is drawn onto them


@dataclass(frozen=True)
class Panel:
    """A few images of one task with truth and prediction, on the CPU."""

    spec: TaskSpec
    images: NDArray[np.uint8]  # (n, side, side, 3) uint8, as the network gets them
    target: BatchTarget
    prediction: Prediction  # without detections below the thresholds
    thresholds: tuple[float, ...] = ()  # detection: lowest score of each class that counts
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Verdict:
    """Truth and prediction of one image in words."""

    truth: str  # empty where it is drawn onto the image
    predicted: str
    right: bool | None = None  # None where that is a matter of degree


@dataclass(frozen=True)
class Boxes:
    """Objects in one image, true or predicted."""

    xyxy: NDArray[np.float32]  # corners in pixels, (n, 4)
    labels: NDArray[np.int64]  # classes, (n,)
    matched: NDArray[np.bool_]  # with an object, or with a prediction, (n,)
    scores: NDArray[np.float32] | None = None  # of predictions, (n,) float32; None for the truth


def above(detections: Detections, thresholds: Sequence[float]) -> Detections:
    """Return the detections whose score reaches the threshold of their class."""
    keep = detections.scores >= detections.scores.new_tensor(thresholds)[detections.labels]
    parts = (detections.boxes, detections.scores, detections.labels, detections.image)
    return Detections(*(part[keep] for part in parts))


def objects_of(panel: Panel) -> list[tuple[Boxes, Boxes]]:
    """Return true and predicted objects, matched, of each image of a detection panel."""
    target, predicted = panel.target, panel.prediction
    if not isinstance(target, DetectionTarget) or not isinstance(predicted, Detections):
        raise TypeError(f"{panel.spec.key} is not a detection task")
    taken = match_detections(predicted, target, panel.spec.task.match_distance_um / panel.spec.mpp)
    hit = torch.zeros(len(target.labels), dtype=torch.bool)
    hit[taken[taken >= 0]] = True
    true = [part.numpy() for part in (target.boxes, target.labels, hit)]
    parts = (predicted.boxes, predicted.labels, taken >= 0, predicted.scores)
    predictions = [part.numpy() for part in parts]
    rows = [(target.image == i, predicted.image == i) for i in range(len(panel))]
    return [
        (
            Boxes(*(part[t.numpy()] for part in true)),
            Boxes(*(part[p.numpy()] for part in predictions)),
        )
        for t, p in rows
    ]


def verdicts(panel: Panel) -> list[Verdict]:
    """Return truth and prediction of each image in words."""
    if panel.spec.task.kind is TaskKind.DETECTION:
        return [_detection_verdict(*one) for one in objects_of(panel)]
    if not isinstance(panel.target, torch.Tensor) or not isinstance(panel.prediction, torch.Tensor):
        raise TypeError(f"{panel.spec.key}: expected tensors, not boxes")
    return [_verdict(panel, *one) for one in zip(panel.target, panel.prediction, strict=True)]


def _verdict(panel: Panel, truth: torch.Tensor, predicted: torch.Tensor) -> Verdict:
    task = panel.spec.task
    if task.kind is TaskKind.REGRESSION:
        error = abs(float(predicted - truth))
        return Verdict(f"{float(truth):.2f}", f"{float(predicted):.2f} (off by {error:.2f})")
    if task.kind is TaskKind.SEGMENTATION:
        # As in validation, but of one image and on one rank, so that nothing waits for others.
        metric = PixelScores(len(task.classes), task.ignore_index, sync_on_compute=False)
        metric.update(predicted[None], truth[None])
        dice = float(metric.compute()["dice"])
        text = f"{dice:.2f}" if np.isfinite(dice) else "undefined: no pixel is labelled"
        return Verdict("", f"Dice {text}")
    if task.kind is TaskKind.MULTILABEL:
        present, chosen = truth >= 0.5, predicted >= 0.5
    else:
        present, chosen = (
            torch.arange(len(task.classes)) == index for index in (truth, predicted.argmax())
        )
    true = [task.classes[i] for i in present.nonzero()]
    named = [f"{task.classes[i]} {100 * float(predicted[i]):.0f} %" for i in chosen.nonzero()]
    right = bool((present == chosen).all())
    return Verdict(" + ".join(true) or "none", " + ".join(named) or "none", right)


def _detection_verdict(truth: Boxes, predicted: Boxes) -> Verdict:
    false = int((~predicted.matched).sum())
    alarms = f"{false} false alarm{'' if false == 1 else 's'}"
    hits = f"{int(truth.matched.sum())} of {len(truth.matched)} found"
    return Verdict("", f"{hits if len(truth.matched) else 'no object'}, {alarms}")


def panel_drawing(panel: Panel) -> Drawing:
    """Draw a panel, with a row per image where something is drawn onto the images."""
    spec = panel.spec
    title, caption = f"{spec.dataset}: {spec.task.name}, validation", ""
    if spec.task.kind is TaskKind.DETECTION:
        scores = ", ".join(f"{value:.2f}" for value in panel.thresholds)
        caption = f"score from {scores}, centres within {spec.task.match_distance_um:g} µm"
    words = [
        f"{number}: " + (f"truth {one.truth}; predicted " if one.truth else "") + one.predicted
        for number, one in enumerate(verdicts(panel), start=1)
    ]
    text = f"{len(panel)} validation images of {spec.dataset}. {'. '.join(words)}."
    heading = f"{title}\n{caption}".strip() + " - SYNTHETIC TISSUE" * panel.synthetic
    name = f"{spec.dataset}-{spec.task.name}"
    return Drawing(name, _draw(panel, heading), title, text, caption)


def _draw(panel: Panel, heading: str) -> Figure:
    dense = panel.spec.task.kind in DENSE
    columns = 3 if dense else min(_COLUMNS, len(panel))
    rows = len(panel) if dense else -(-len(panel) // columns)
    height = rows * (_INCHES + 0.28 + 0.25 * (not dense)) + 0.6 + 0.3 * dense
    figure = new_figure(max(columns * (_INCHES + 0.1), 4.4), height)
    figure.suptitle(heading, fontsize=10.5, color=INK, parse_math=False)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        clear(axes)
    if dense:
        _draw_rows(panel, grid)
        _legend(figure, panel)
    else:
        for axes, image, verdict in zip(grid.ravel(), panel.images, verdicts(panel), strict=False):
            show_patch(axes, image)
            lines = (f"truth: {verdict.truth}", verdict.predicted)
            write_below(axes, lines, 27, verdict.right)
    return figure


def _draw_rows(panel: Panel, grid: Any) -> None:
    """Draw image, truth and prediction, with the verdict below the prediction."""
    for axes, title in zip(grid[0], ("image", "truth", "prediction"), strict=True):
        axes.set_title(title, fontsize=10, color=INK)
    task, colours = panel.spec.task, class_colours([panel.spec.task])
    segments = task.kind is TaskKind.SEGMENTATION
    objects = [] if segments else objects_of(panel)
    for row, verdict in enumerate(verdicts(panel)):
        for column, axes in enumerate(grid[row]):
            masks = []
            if segments and column:
                values: Any = (panel.target, panel.prediction)[column - 1]
                masks = [(task, values[row].numpy().astype(np.uint8))]
            show_patch(axes, panel.images[row], masks, colours)
        if not segments:
            truth, predicted = objects[row]
            draw_boxes(grid[row, 1], truth.xyxy, [colours[task.classes[i]] for i in truth.labels])
            missed = truth.xyxy[~truth.matched]
            looks = [MISSED] * len(missed) + [HIT if hit else FALSE for hit in predicted.matched]
            boxes = np.concatenate([missed, predicted.xyxy])
            draw_boxes(grid[row, 2], boxes, [c for c, _ in looks], [line for _, line in looks])
        grid[row, 2].set_xlabel(verdict.predicted, fontsize=9.5, color=INK, labelpad=3)


def _legend(figure: Figure, panel: Panel) -> None:
    detects = panel.spec.task.kind is TaskKind.DETECTION
    prefix = "truth: " if detects else ""
    looks = {f"{prefix}{name}": (c, "-") for name, c in class_colours([panel.spec.task]).items()}
    if detects:
        looks |= {"found": HIT, "not found": MISSED, "false alarm": FALSE}
    figure.legend(
        handles=[Line2D([], [], color=c, ls=ls, lw=2, label=n) for n, (c, ls) in looks.items()],
        loc="outside lower center",
        ncols=min(len(looks), 4),
        fontsize=9.5,
        facecolor=_LEGEND,
        framealpha=1,
    )
