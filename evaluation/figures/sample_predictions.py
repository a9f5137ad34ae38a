"""Predictions beside the truth: what is known about a few validation images of one task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.core.records import TaskKind
from datamodules.stream.batch import BatchTarget, DetectionTarget
from models.metrics.classification import PixelScores
from models.metrics.detection import match_detections
from models.network.detection_grid import Detections
from models.network.heads import Prediction
from models.tasks import TaskSpec


@dataclass(frozen=True)
class Panel:
    """A few images of one task with truth and prediction, on the CPU.

    Attributes:
        spec: the task.
        images: uint8 (n, side, side, 3), as the network sees them.
        target: of these images.
        prediction: of these images; detections below the thresholds are gone.
        thresholds: detection: lowest score of each class that counts.
        synthetic: whether a program drew the tissue.
    """

    spec: TaskSpec
    images: NDArray[np.uint8]
    target: BatchTarget
    prediction: Prediction
    thresholds: tuple[float, ...] = ()
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.spec.dataset}-{self.spec.task.name}"


@dataclass(frozen=True)
class Verdict:
    """What is to be said about one image.

    Attributes:
        truth: the target in words; empty where it is drawn.
        said: the prediction in words.
        right: whether it is right; None where there is more or less.
    """

    truth: str
    said: str
    right: bool | None = None


@dataclass(frozen=True)
class Objects:
    """Objects of one image, told apart by their fate.

    Attributes:
        truth: boxes (t, 4), x1, y1, x2, y2 in pixels.
        truth_labels: class of each, (t,).
        found: whether a prediction hits each, (t,).
        said: predicted boxes (p, 4).
        said_labels, scores: of each, (p,).
        hit: whether each hits an object, (p,).
    """

    truth: NDArray[np.float32]
    truth_labels: NDArray[np.int64]
    found: NDArray[np.bool_]
    said: NDArray[np.float32]
    said_labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    hit: NDArray[np.bool_]


def above(found: Detections, thresholds: Sequence[float]) -> Detections:
    """The detections whose score reaches the threshold of their class."""
    keep = found.scores >= found.scores.new_tensor(thresholds)[found.labels]
    return Detections(found.boxes[keep], found.scores[keep], found.labels[keep], found.image[keep])


def objects_of(panel: Panel) -> list[Objects]:
    """The objects of each image of a detection panel, matched at the task's distance."""
    target, found = panel.target, panel.prediction
    if not isinstance(target, DetectionTarget) or not isinstance(found, Detections):
        raise TypeError(f"{panel.spec.key} is not a detection task")
    taken = match_detections(found, target, panel.spec.task.match_distance_um / panel.spec.mpp)
    hit = torch.zeros(len(target.labels), dtype=torch.bool)
    hit[taken[taken >= 0]] = True
    result = []
    for image in range(len(panel)):
        true, said = target.image == image, found.image == image
        result.append(
            Objects(
                target.boxes[true].numpy(),
                target.labels[true].numpy(),
                hit[true].numpy(),
                found.boxes[said].numpy(),
                found.labels[said].numpy(),
                found.scores[said].numpy(),
                (taken[said] >= 0).numpy(),
            )
        )
    return result


def verdicts(panel: Panel) -> list[Verdict]:
    """Truth and prediction of each image in words."""
    task, target, said = panel.spec.task, panel.target, panel.prediction
    if task.kind is TaskKind.DETECTION:
        return [_detected(one) for one in objects_of(panel)]
    if not isinstance(target, torch.Tensor) or not isinstance(said, torch.Tensor):
        raise TypeError(f"{panel.spec.key}: boxes where a tensor is needed")
    match task.kind:
        case TaskKind.CLASSIFICATION:
            return [_class(task.classes, int(t), p) for t, p in zip(target, said, strict=True)]
        case TaskKind.MULTILABEL:
            return [_labels(task.classes, t, p) for t, p in zip(target, said, strict=True)]
        case TaskKind.REGRESSION:
            return [
                Verdict(f"{float(t):.2f}", f"{float(p):.2f} (off by {abs(float(p - t)):.2f})")
                for t, p in zip(target, said, strict=True)
            ]
        case _:
            return [
                Verdict("", f"Dice {_dice(panel, p, t)}") for t, p in zip(target, said, strict=True)
            ]


def _class(classes: Sequence[str], truth: int, probabilities: torch.Tensor) -> Verdict:
    chosen = int(probabilities.argmax())
    said = f"{classes[chosen]} {100 * float(probabilities[chosen]):.0f} %"
    return Verdict(classes[truth], said, chosen == truth)


def _labels(classes: Sequence[str], truth: torch.Tensor, probabilities: torch.Tensor) -> Verdict:
    present, chosen = truth >= 0.5, probabilities >= 0.5
    true = [name for name, flag in zip(classes, present, strict=True) if flag]
    said = [
        f"{name} {100 * float(p):.0f} %"
        for name, flag, p in zip(classes, chosen, probabilities, strict=True)
        if flag
    ]
    right = bool((present == chosen).all())
    return Verdict(" + ".join(true) or "none", " + ".join(said) or "none", right)


def _detected(one: Objects) -> Verdict:
    false = int((~one.hit).sum())
    alarms = f"{false} false alarm{'' if false == 1 else 's'}"
    if not len(one.found):
        return Verdict("", f"no object, {alarms}")
    return Verdict("", f"{int(one.found.sum())} of {len(one.found)} found, {alarms}")


def _dice(panel: Panel, said: torch.Tensor, truth: torch.Tensor) -> str:
    """As validation computes it, of one image; one rank draws, so nothing waits for the others."""
    task = panel.spec.task
    metric = PixelScores(len(task.classes), task.ignore_index, sync_on_compute=False)
    metric.update(said[None], truth[None])
    value = float(metric.compute()["dice"])
    return f"{value:.2f}" if np.isfinite(value) else "undefined: no pixel is labelled"
