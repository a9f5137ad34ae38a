"""What a study says: scores, paired differences, areas and sample efficiency, with intervals.

The score of (encoder, size) is the mean over repeats of the metric on all test images together:
the folds' predictions are pooled before the metric is taken, because the mean of F1 over small
folds is biased (Forman & Scholz, "Apples-to-apples in cross-validation studies", SIGKDD
Explorations 12(1), 2010). Intervals: see bootstrap.py.
"""

from __future__ import annotations

from dataclasses import dataclass

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

FEW_GROUPS = 10  # below so many test groups a reader is warned


@dataclass(frozen=True)
class Curve:
    """One encoder's learning curve.

    Attributes:
        encoder: name.
        scores: one per size.
        area: mean score along log(labels), so in the metric's own unit.
    """

    encoder: str
    scores: tuple[Interval, ...]
    area: Interval


@dataclass(frozen=True)
class Comparison:
    """An encoder against the baseline, on the same subsets and test groups.

    Attributes:
        encoder, baseline: names.
        differences: encoder minus baseline per size, in the metric's unit.
        area: the same for the area under the learning curve.
        efficiency: one per size.
        verdict: 1 better, -1 worse; 0 if the area's interval holds zero or one group tests.
    """

    encoder: str
    baseline: str
    differences: tuple[Interval, ...]
    area: Interval
    efficiency: tuple[Efficiency, ...]
    verdict: int


@dataclass(frozen=True)
class DatasetStatistics:
    """Everything that is said about one predictor on one dataset.

    Attributes:
        dataset: name.
        metric: of all its scores.
        sizes: requested labels, 0 for all.
        labels: labels in use, mean over folds.
        repeats, folds, groups, images: of the study; groups and images are those tested.
        constant: score of the best prediction that knows no image.
        curves: one per encoder.
        comparisons: one per encoder but the baseline; empty without a baseline.
        cautions: what the intervals do not cover, in words.
        predictor: what learnt from the features.
    """

    dataset: str
    metric: Metric
    sizes: tuple[int, ...]
    labels: tuple[float, ...]
    repeats: int
    folds: int
    groups: int
    images: int
    constant: float
    curves: tuple[Curve, ...]
    comparisons: tuple[Comparison, ...]
    cautions: tuple[str, ...]
    predictor: str


def summarise(
    result: Predictions, resamples: int = 2000, seed: int = 0, trainings: int = 1
) -> DatasetStatistics:
    """All statistics of one dataset.

    Args:
        result: predictions of its sweep.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        trainings: runs of every encoder's training behind the repeats; see `resampled_scores`.
    """
    metric, labels = result.metric, result.labels
    names, group = np.unique(result.group, return_inverse=True)
    parts = parts_by_group(
        metric, result.truth, result.predicted, group, len(names), result.positive
    )
    point = mean_scores(metric, parts)
    drawn = resampled_scores(metric, parts, resamples, seed, trainings)
    areas, drawn_areas = area(labels, point), area(labels, drawn)
    curves = tuple(
        Curve(
            encoder,
            tuple(
                interval(point[e, s], drawn[..., e, s], len(names))
                for s in range(len(result.sizes))
            ),
            interval(areas[e], drawn_areas[..., e], len(names)),
        )
        for e, encoder in enumerate(result.encoders)
    )
    comparisons: tuple[Comparison, ...] = ()
    if result.baseline is not None:
        b = result.encoders.index(result.baseline)
        comparisons = tuple(
            _compare(result, point, drawn, e, b, len(names))
            for e in range(len(result.encoders))
            if e != b
        )
    return DatasetStatistics(
        dataset=result.dataset,
        metric=metric,
        sizes=result.sizes,
        labels=tuple(float(n) for n in labels),
        repeats=result.repeats,
        folds=len(result.fold_numbers),
        groups=len(names),
        images=len(result.rows),
        constant=score(metric, result.truth, result.constant, result.positive),
        curves=curves,
        comparisons=comparisons,
        cautions=_cautions(len(names), result),
        predictor=result.predictor,
    )


def area(labels: Floats, scores: Floats) -> Floats:
    """Mean score along log(labels), by trapezoids: (..., sizes) to (...)."""
    if len(labels) == 1:
        return np.asarray(scores[..., 0])
    x = np.log(labels)
    return np.asarray(np.trapezoid(scores, x, axis=-1) / (x[-1] - x[0]))


def _compare(
    result: Predictions, point: Floats, drawn: Floats, e: int, b: int, groups: int
) -> Comparison:
    labels = result.labels
    difference, drawn_difference = point[e] - point[b], drawn[..., e, :] - drawn[..., b, :]
    whole = interval(float(area(labels, difference)), area(labels, drawn_difference), groups)
    higher = result.metric.higher_is_better
    efficiency = []
    for s, n in enumerate(labels):
        needed = percentiles(
            float(labels_needed(labels, point[b], np.asarray(point[e, s]), higher)),
            labels_needed(labels, drawn[0, :, b], drawn[0, :, e, s], higher),
            groups,
        )
        efficiency.append(efficiency_of(float(n), needed, labels))
    unclear = whole.low <= 0 <= whole.high or groups < 2  # one patient says nothing about others
    clear = 0 if unclear else int(np.sign(whole.value))
    return Comparison(
        encoder=result.encoders[e],
        baseline=result.encoders[b],
        differences=tuple(
            interval(difference[s], drawn_difference[..., s], groups) for s in range(len(labels))
        ),
        area=whole,
        efficiency=tuple(efficiency),
        verdict=clear if higher else -clear,
    )


def _cautions(groups: int, result: Predictions) -> tuple[str, ...]:
    found = []
    if groups == 1:
        found.append(
            "One test group only: the intervals cover the draw of the labelled images, and say "
            "nothing about other patients."
        )
    elif groups < FEW_GROUPS:
        found.append(
            f"Only {groups} test groups: the intervals span what mixtures of these few patients "
            "give; how other patients differ they can hardly tell."
        )
    if result.repeats < 5:
        found.append(
            f"Only {result.repeats} draws of the labelled images: the intervals may be too narrow."
        )
    return (*found, *(text[0].upper() + text[1:] + "." for text in result.left_out))
