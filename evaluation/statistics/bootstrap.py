"""Resampling of test groups and of repeats, and the interval that follows.

Both things that a repetition of the study would draw anew are resampled, independently of each
other and with replacement: the test groups (patients) and the repeats (draws of the labelled
subsets). For crossed factors this is the "pigeonhole bootstrap" (Owen, Annals of Applied
Statistics 1(2), 2007). What only a patient and a draw together explain it counts three times, so
its resamples are drawn in to the variance of resampling either factor alone, both added up, which
counts that twice: still on the safe side. One draw serves all encoders and sizes, so differences
between them are paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from evaluation.statistics.metrics import Floats, Metric, score_of_parts

LEVEL = 0.95
BLOCK = 4_000_000
"""Numbers in memory at a time."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_scores(metric: Metric, parts: Floats) -> Floats:
    """Scores of all test groups together, mean over repeats.

    Args:
        metric: which metric.
        parts: (encoders, sizes, repeats, groups, k).

    Returns:
        (encoders, sizes).
    """
    return np.asarray(score_of_parts(metric, parts.sum(axis=-2)).mean(axis=-1))


def resampled_scores(
    metric: Metric, parts: Floats, count: int, seed: int, trainings: int = 1
) -> Floats:
    """The same for `count` resamples.

    Args:
        metric: which metric.
        parts: (encoders, sizes, repeats, groups, k).
        count: of resamples.
        seed: of the resampling.
        trainings: runs of every encoder's training that the repeats come from, those of one run
            next to each other. They are resampled together with the repeats.

    Returns:
        (3, count, encoders, sizes): of groups and repeats, of groups alone, of repeats alone.
    """
    encoders, sizes, repeats, groups, k = parts.shape
    draws = repeats // trainings
    rng = np.random.default_rng(seed)
    flat = np.moveaxis(parts, 3, 0).reshape(groups, -1)
    block = max(1, BLOCK // max(groups, flat.shape[1]))
    of_all = score_of_parts(metric, parts.sum(axis=-2))
    scores = np.empty((3, count, encoders, sizes))
    for start in range(0, count, block):
        n = min(block, count - start)
        of_groups = rng.multinomial(groups, np.full(groups, 1 / groups), n).astype(np.float64)
        of_repeats = rng.multinomial(draws, np.full(draws, 1 / draws), n) / draws
        if trainings > 1:
            of_runs = rng.multinomial(trainings, np.full(trainings, 1 / trainings), n) / trainings
            of_repeats = np.einsum("bt,br->btr", of_runs, of_repeats).reshape(n, repeats)
        sums = (of_groups @ flat).reshape(n, encoders, sizes, repeats, k)
        per_repeat = score_of_parts(metric, sums)
        here = slice(start, start + n)
        scores[0, here] = np.einsum("besr,br->bes", per_repeat, of_repeats)
        scores[1, here] = per_repeat.mean(axis=-1)
        scores[2, here] = np.einsum("esr,br->bes", of_all, of_repeats)
    return scores


def tail(groups: int) -> float:
    """Probability cut off at each end so that intervals from few groups are not too narrow.

    The "expanded percentile interval" (Hesterberg, The American Statistician 69(4), 2015,
    section 4.5): the percentile bootstrap is too narrow by sqrt((n - 1) / n) and by the normal
    in place of Student's t; cutting off less makes up for both. From very few groups it cuts off
    nothing: the interval is the whole range of the resamples.
    """
    if groups < 2:
        return (1 - LEVEL) / 2
    widened = np.sqrt(groups / (groups - 1)) * t.ppf((1 - LEVEL) / 2, groups - 1)
    return float(norm.cdf(widened))


def interval(value: float, resamples: Floats, groups: int) -> Interval:
    """The interval of a score, or of a sum or difference of scores.

    Args:
        value: of the study.
        resamples: the same of `resampled_scores`, (3, count).
        groups: how many test groups there are.
    """
    both, of_groups, of_repeats = resamples
    centre, variance = both.mean(), both.var()
    wanted = of_groups.var() + of_repeats.var()
    if wanted < variance:
        both = centre + (both - centre) * np.sqrt(wanted / variance)
    return percentiles(value, both, groups)


def percentiles(value: float, resamples: Floats, groups: int) -> Interval:
    """The interval of any number from its resamples (count,), infinite ones included."""
    cut = tail(groups)
    low, high = np.quantile(resamples, [cut, 1 - cut], method="inverted_cdf")
    return Interval(float(value), float(low), float(high))
