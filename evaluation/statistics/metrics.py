"""Metrics as ratios of sums over test images.

Every metric here is computed from numbers that add up over images ("parts"). So a score of any
mixture of test groups, which a bootstrap needs thousands of times, costs one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import TaskKind

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric and how to read it.

    Attributes:
        name: as it stands in tables: "f1", "macro_f1" or "mse".
        title: as a person reads it.
        higher_is_better: the direction of progress.
        percent: whether it is shown as a percentage.
    """

    name: str
    title: str
    higher_is_better: bool
    percent: bool


F1 = Metric("f1", "F1", True, True)
MACRO_F1 = Metric("macro_f1", "macro F1", True, True)
MSE = Metric("mse", "MSE", False, False)
METRICS = {metric.name: metric for metric in (F1, MACRO_F1, MSE)}


def metric_of(kind: TaskKind, positive: int | None) -> Metric:
    """F1 of the positive class for two classes, macro F1 for several, MSE for regression."""
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
    """What the metric needs, summed within each test group.

    Args:
        metric: which metric.
        truth: targets (t,) of the test images.
        predicted: predictions (..., t) of any number of probes.
        group: group of each test image, 0 to groups - 1, (t,).
        groups: how many there are.
        positive: the class that counts for `F1`.

    Returns:
        float64 (..., groups, k): for MSE the squared error and the count; otherwise, per class,
        hits, predicted and true images.
    """
    if metric is MSE:
        error = (predicted.astype(np.float64) - truth) ** 2
        columns = [_sum_by_group(error, group, groups)]
        columns.append(_sum_by_group(np.ones_like(error), group, groups))
        return np.stack(columns, axis=-1)
    classes = np.union1d(truth, predicted) if positive is None else np.asarray([positive])
    columns = []
    for label in classes:
        true, said = truth == label, predicted == label
        columns.append(_sum_by_group(said & true, group, groups))
        columns.append(_sum_by_group(said, group, groups))
        columns.append(_sum_by_group(np.broadcast_to(true, said.shape), group, groups))
    return np.stack(columns, axis=-1)


def score_of_parts(metric: Metric, parts: Floats) -> Floats:
    """The metric of summed parts, (..., k) to (...).

    As in scikit-learn, F1 is 0 where a class is neither present nor predicted, and macro F1 is
    the mean over classes that are present or predicted.
    """
    if metric is MSE:
        return np.asarray(parts[..., 0] / parts[..., 1])
    hits, said, true = parts[..., 0::3], parts[..., 1::3], parts[..., 2::3]
    total = said + true
    f1 = np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
    known = np.maximum((total > 0).sum(-1), 1)
    return np.asarray(f1.sum(-1) / known)


def score(
    metric: Metric, truth: NDArray[Any], predicted: NDArray[Any], positive: int | None
) -> float:
    """The metric of one set of predictions, both (t,)."""
    one = np.zeros(len(truth), np.int64)
    return float(
        score_of_parts(metric, parts_by_group(metric, truth, predicted, one, 1, positive))[0]
    )


def _sum_by_group(values: NDArray[Any], group: NDArray[np.int64], groups: int) -> Floats:
    flat = values.reshape(-1, values.shape[-1])
    sums = [np.bincount(group, weights=row, minlength=groups) for row in flat]
    return np.asarray(sums, np.float64).reshape(*values.shape[:-1], groups)
