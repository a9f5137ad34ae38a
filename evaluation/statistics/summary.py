"""Statistics of a study: scores, paired differences, areas and sample efficiency, with intervals.

The score of (encoder, size) is the mean over repeats of the metric on all test images together:
predictions of all folds are pooled before the metric is computed, because the mean of F1 over
small folds is biased (Forman & Scholz, SIGKDD Explorations 12(1), 2010).
"""

from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from evaluation.statistics.bootstrap import (
    Interval,
    interval,
    mean_scores,
    percentiles,
    resampled_scores,
)
from evaluation.statistics.efficiency import Efficiency, efficiency_of, labels_needed
from evaluation.statistics.metrics import Floats, Metric, parts_by_group, score
from evaluation.statistics.predictions import Predictions

FEW_GROUPS, FEW_REPEATS = 10, 5
"""With fewer of them a caution is added."""


@dataclass(frozen=True)
class Curve:
    """One encoder's learning curve."""

    encoder: str
    scores: tuple[Interval, ...]  # one per size
    area: Interval  # mean score along log(labels), in the metric's own unit


@dataclass(frozen=True)
class Comparison:
    """An encoder against the baseline, on the same subsets and test groups.

    The verdict is 1 for better, -1 for worse, and 0 if the area's interval contains zero or there
    is only one test group.
    """

    encoder: str
    baseline: str
    differences: tuple[Interval, ...]  # encoder minus baseline per size, in the metric's unit
    area: Interval  # the same for the area under the learning curve
    efficiency: tuple[Efficiency, ...]  # one per size
    verdict: int


@dataclass(frozen=True)
class DatasetStatistics:
    """All statistics of one predictor on one dataset; groups and images are those tested."""

    dataset: str
    metric: Metric
    sizes: tuple[int, ...]  # requested labels, 0 for all
    labels: tuple[float, ...]  # labels in use, the mean over folds
    repeats: int
    folds: int
    groups: int
    images: int
    constant: float  # score of the best prediction without looking at an image
    curves: tuple[Curve, ...]  # one per encoder
    comparisons: tuple[Comparison, ...]  # one per encoder but the baseline; none without one
    cautions: tuple[str, ...]  # what the intervals do not cover, in words
    predictor: str
    baseline: str | None
    protocol: str  # digest of the test; scores with equal digests are comparable
    seeds: list[list[list[int]]]  # of the predictors, by size, repeat and fold

    @property
    def encoders(self) -> list[str]:
        """Names of the encoders, the study's own first."""
        return [curve.encoder for curve in self.curves]


def summarise(
    result: Predictions, resamples: int, seed: int = 0, trainings: int = 1
) -> DatasetStatistics:
    """Compute all statistics of one dataset; `seed` and the rest are those of the bootstrap.

    `trainings` of every encoder are behind the repeats, see `resampled_scores`.

    Example:
        Two encoders on four images of four patients; the second one is always right.

        >>> from evaluation.statistics.metrics import F1
        >>> result = Predictions(
        ...     dataset="idc", metric=F1, encoders=("weak", "strong"), baseline="weak",
        ...     sizes=(10,), fold_numbers=np.array([0]), n_train=np.array([[10]]),
        ...     seeds=np.zeros((1, 1, 1), int), rows=np.arange(4), fold=np.zeros(4, int),
        ...     group=np.arange(4), truth=np.array([0, 1, 1, 0]), constant=np.ones(4, int),
        ...     predicted=np.array([[[[1, 0, 1, 0]]], [[[0, 1, 1, 0]]]]), positive=1,
        ... )
        >>> statistics = summarise(result, resamples=50)
        >>> [curve.scores[0].value for curve in statistics.curves]
        [0.5, 1.0]
        >>> statistics.comparisons[0].differences[0].value
        0.5
        >>> statistics.cautions[0][:19]
        'Only 4 test groups:'
    """
    metric, labels = result.metric, result.labels
    names, group = np.unique(result.group, return_inverse=True)
    groups = len(names)
    parts = parts_by_group(metric, result.truth, result.predicted, group, groups, result.positive)
    point = mean_scores(metric, parts)
    drawn = resampled_scores(metric, parts, resamples, seed, trainings)
    curves = tuple(
        Curve(encoder, *_with_area(labels, point[e], drawn[..., e, :], groups))
        for e, encoder in enumerate(result.encoders)
    )
    comparisons: tuple[Comparison, ...] = ()
    if result.baseline is not None:
        b = result.encoders.index(result.baseline)
        others = [e for e in range(len(result.encoders)) if e != b]
        comparisons = tuple(_compare(result, point, drawn, e, b, groups) for e in others)
    return DatasetStatistics(
        dataset=result.dataset,
        metric=metric,
        sizes=result.sizes,
        labels=tuple(float(n) for n in labels),
        repeats=result.repeats,
        folds=len(result.fold_numbers),
        groups=groups,
        images=len(np.unique(result.rows)),
        constant=score(metric, result.truth, result.constant, result.positive),
        curves=curves,
        comparisons=comparisons,
        cautions=_cautions(groups, result),
        predictor=result.predictor,
        baseline=result.baseline,
        protocol=result.protocol,
        seeds=result.seeds.tolist(),
    )


def score_rows(statistics: DatasetStatistics) -> list[dict[str, Any]]:
    """Return one row per encoder and size, with the difference to the baseline or None."""
    differences = {one.encoder: one.differences for one in statistics.comparisons}
    nothing = dict.fromkeys(("difference", "difference_low", "difference_high"))
    return [
        {
            "dataset": statistics.dataset,
            "encoder": curve.encoder,
            "predictor": statistics.predictor,
            "size": statistics.sizes[s],
            "n_train": statistics.labels[s],
            "repeats": statistics.repeats,
            "metric": statistics.metric.name,
            **asdict(value),
            **(change.columns("difference") if change else nothing),
        }
        for curve in statistics.curves
        for s, (value, change) in enumerate(
            zip_longest(curve.scores, differences.get(curve.encoder, ()))
        )
    ]


def area(labels: Floats, scores: Floats) -> Floats:
    """Return the mean score along log(labels), by trapezoids: (..., sizes) to (...)."""
    if len(labels) == 1:
        return np.asarray(scores[..., 0])
    x = np.log(labels)
    return np.asarray(np.trapezoid(scores, x, axis=-1) / (x[-1] - x[0]))


def _with_area(
    labels: Floats, point: Floats, drawn: Floats, groups: int
) -> tuple[tuple[Interval, ...], Interval]:
    """Return the intervals of scores (sizes,), and of their area."""
    each = tuple(interval(value, drawn[..., s], groups) for s, value in enumerate(point))
    return each, interval(float(area(labels, point)), area(labels, drawn), groups)


def _compare(
    result: Predictions, point: Floats, drawn: Floats, e: int, b: int, groups: int
) -> Comparison:
    """Compare encoder `e` with the baseline `b`."""
    labels, higher = result.labels, result.metric.higher_is_better
    differences, whole = _with_area(
        labels, point[e] - point[b], drawn[..., e, :] - drawn[..., b, :], groups
    )
    efficiency = []
    for s, n in enumerate(labels):
        needed = percentiles(
            float(labels_needed(labels, point[b], np.asarray(point[e, s]), higher)),
            labels_needed(labels, drawn[0, :, b], drawn[0, :, e, s], higher),
            groups,
        )
        efficiency.append(efficiency_of(float(n), needed, labels))
    unclear = whole.low <= 0 <= whole.high or groups < 2  # one patient does not generalise
    sign = 0 if unclear else int(np.sign(whole.value))
    return Comparison(
        encoder=result.encoders[e],
        baseline=result.encoders[b],
        differences=differences,
        area=whole,
        efficiency=tuple(efficiency),
        verdict=sign if higher else -sign,
    )


def _cautions(groups: int, result: Predictions) -> tuple[str, ...]:
    cautions = []
    if groups == 1:
        cautions.append(
            "One test group only: the intervals cover the draw of the labelled images and do not "
            "generalise to other patients."
        )
    elif groups < FEW_GROUPS:
        cautions.append(
            f"Only {groups} test groups: the intervals reflect mixtures of these few patients and "
            "may not cover how other patients differ."
        )
    if result.repeats < FEW_REPEATS:
        cautions.append(
            f"Only {result.repeats} draws of the labelled images: the intervals may be too narrow."
        )
    if result.metric.name in ("f1", "macro_f1") and len(result.fold_numbers) > 1:
        for label in np.unique(result.truth):
            if len(np.unique(result.fold[result.truth == label])) == 1:
                cautions.append(
                    f"All images of class {label:g} are tested in one fold, which then trains "
                    "without any: they cannot be found, and the scores do not compare encoders."
                )
    return (*cautions, *(text[0].upper() + text[1:] + "." for text in result.left_out))
