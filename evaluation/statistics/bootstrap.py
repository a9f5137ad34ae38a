"""Resampling of test groups and repeats, and the intervals that follow.

Test groups (patients) and repeats (labelled subsets) are resampled with replacement, independently
of each other: the "pigeonhole bootstrap" for crossed factors (Owen, Annals of Applied Statistics
1(2), 2007). It counts the interaction of patients and draws three times. Its resamples are
therefore contracted to the sum of the variances from resampling either factor alone, which counts
the interaction twice and is still conservative. One draw serves all encoders and sizes, so
differences between them are paired.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from evaluation.statistics.metrics import Floats, Metric, score_of_parts

LEVEL = 0.95
BLOCK = 4_000_000
"""Numbers held in memory at a time."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        """Return value and ends as columns of a table."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def mean_scores(metric: Metric, parts: Floats) -> Floats:
    """Return mean scores over repeats (encoders, sizes) from (encoders, sizes, repeats, groups, k).

    All test groups are scored together.
    """
    return np.asarray(score_of_parts(metric, parts.sum(axis=-2)).mean(axis=-1))


def resampled_scores(
    metric: Metric, parts: Floats, count: int, seed: int, trainings: int = 1
) -> Floats:
    """Compute `mean_scores` of `count` resamples.

    The repeats may come from several `trainings` of every encoder, those of one training next to
    each other; trainings are then resampled together with them.

    Returns:
        (3, count, encoders, sizes): resampling groups and repeats, groups only, repeats only.
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
        rows = slice(start, start + n)
        scores[0, rows] = np.einsum("besr,br->bes", per_repeat, of_repeats)
        scores[1, rows] = per_repeat.mean(axis=-1)
        scores[2, rows] = np.einsum("esr,br->bes", of_all, of_repeats)
    return scores


def tail(groups: int) -> float:
    """Return the probability to cut off at each end, less than 2.5 % for few groups.

    The "expanded percentile interval" (Hesterberg, The American Statistician 69(4), 2015,
    section 4.5): the percentile bootstrap is too narrow by sqrt((n - 1) / n) and because it uses
    the normal in place of Student's t; cutting off less corrects both. For very few groups nothing
    is cut off: the interval is the whole range of the resamples.
    """
    if groups < 2:
        return (1 - LEVEL) / 2
    widened = np.sqrt(groups / (groups - 1)) * t.ppf((1 - LEVEL) / 2, groups - 1)
    return float(norm.cdf(widened))


def interval(value: float, resamples: Floats, groups: int) -> Interval:
    """Return the interval of a score, or of a sum or difference of scores.

    Its resamples (3, count) are those of `resampled_scores`; `groups` is the number of test groups.
    """
    both, of_groups, of_repeats = resamples
    centre, variance = both.mean(), both.var()
    target = of_groups.var() + of_repeats.var()
    if target < variance:
        both = centre + (both - centre) * np.sqrt(target / variance)
    return percentiles(value, both, groups)


def percentiles(value: float, resamples: Floats, groups: int) -> Interval:
    """Return the interval of any number from its resamples (count,), which may be infinite."""
    cut = tail(groups)
    low, high = np.quantile(resamples, [cut, 1 - cut], method="inverted_cdf")
    return Interval(float(value), float(low), float(high))
