"""Metrics as ratios of sums over test images ("parts").

So the score of any mixture of test groups, of which a bootstrap needs thousands, costs one matrix
product.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import TaskKind

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric: its name in tables, its title in texts, and whether scores are percentages."""

    name: str
    title: str
    higher_is_better: bool
    percent: bool


F1 = Metric("f1", "F1", True, True)
MACRO_F1 = Metric("macro_f1", "macro F1", True, True)
MSE = Metric("mse", "MSE", False, False)
DICE = Metric("dice", "Dice", True, True)
MEAN_DICE = Metric("mean_dice", "mean Dice", True, True)
CENTRE_F1 = Metric("centre_f1", "F1 of detections", True, True)
METRICS = {m.name: m for m in (F1, MACRO_F1, MSE, DICE, MEAN_DICE, CENTRE_F1)}


def metric_of(kind: TaskKind, positive: int | None, dense: TaskKind | None = None) -> Metric:
    """Return F1 of the positive class for two classes, macro F1 for more, MSE for regression.

    Of a dense task these are Dice or mean Dice of pixels, and the F1 of detections.
    """
    if dense is TaskKind.DETECTION:
        return CENTRE_F1
    if dense is TaskKind.SEGMENTATION:
        return MEAN_DICE if positive is None else DICE
    if kind is TaskKind.REGRESSION:
        return MSE
    return MACRO_F1 if positive is None else F1


def parts_by_group(
    metric: Metric,
    truth: NDArray[Any],
    predicted: NDArray[Any],
    group: NDArray[np.int64],
    groups: int,
    positive: int | None,
) -> Floats:
    """Sum what the metric needs within each test group.

    Targets and groups (0 to groups - 1) of the test images are (t,), predictions of any number of
    probes (..., t). Only F1 has a positive class. Of a dense task, both are counts: true pixels or
    objects of k classes, (t, k), and hits and predicted ones, (..., t, 2 * k).

    Returns:
        (..., groups, k) float64: for MSE the squared error and the number of images; otherwise,
        per class, hits, predicted images and true images.
    """
    if truth.ndim == 2:
        hits, found = np.split(predicted, 2, axis=-1)
        counts = np.stack(np.broadcast_arrays(hits, found, truth), axis=-1)
        one_hot = (group == np.arange(groups)[:, None]).astype(np.float64)
        return np.asarray(one_hot @ counts.reshape(*hits.shape[:-1], -1))
    if metric is MSE:
        error = (predicted.astype(np.float64) - truth) ** 2
        counted = [error, np.ones_like(error)]
    else:
        counted = []
        for label in np.union1d(truth, predicted) if positive is None else [positive]:
            true, positives = truth == label, predicted == label
            counted += [positives & true, positives, np.broadcast_to(true, positives.shape)]
    sums = [
        [np.bincount(group, weights=row, minlength=groups) for row in one.reshape(-1, len(group))]
        for one in counted
    ]
    shape = (*predicted.shape[:-1], groups)
    return np.stack([np.asarray(one, np.float64).reshape(shape) for one in sums], axis=-1)


def score_of_parts(metric: Metric, parts: Floats) -> Floats:
    """Compute the metric of summed parts, (..., k) to (...).

    As in scikit-learn, F1 is 0 where a class is neither present nor predicted, and macro F1 is
    the mean over classes that are present or predicted.
    """
    if metric is MSE:
        return np.asarray(parts[..., 0] / parts[..., 1])
    hits, total = parts[..., 0::3], parts[..., 1::3] + parts[..., 2::3]
    f1 = np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(f1.sum(-1) / np.maximum((total > 0).sum(-1), 1))


def score(
    metric: Metric, truth: NDArray[Any], predicted: NDArray[Any], positive: int | None
) -> float:
    """Compute the metric of one set of predictions, both (t,)."""
    one_group = np.zeros(len(truth), np.int64)
    parts = parts_by_group(metric, truth, predicted, one_group, 1, positive)
    return float(score_of_parts(metric, parts[0]))
