"""Sample efficiency: the labels that a baseline needs for what an encoder reaches with fewer."""

from dataclasses import dataclass

import numpy as np

from evaluation.statistics.bootstrap import Interval
from evaluation.statistics.metrics import Floats


@dataclass(frozen=True)
class Efficiency:
    """How many labels the baseline needs for the score that an encoder reaches with `labels`.

    Both numbers are also given in words: "5.2 times fewer labels (95 %: 3.1 to 8.9)".
    """

    labels: float
    needed: (
        Interval  # 0: fewer than the baseline's smallest subset, infinity: more than its largest
    )
    text: str
    factor: Interval  # needed / labels, with the same meaning of 0 and infinity
    factor_text: str


def labels_needed(
    labels: Floats, baseline: Floats, target: Floats, higher_is_better: bool
) -> Floats:
    """Return the labels at which the baseline's learning curve reaches a score.

    The curve is made monotone (the best so far) and interpolated linearly in log(labels), never
    extrapolated: 0 where fewer than the smallest size suffice, infinity where all do not.

    Args:
        labels: ascending, (sizes,).
        baseline: its scores, (..., sizes).
        target: scores to reach, (...), as the result.
        higher_is_better: direction of the metric.
    """
    sign = 1.0 if higher_is_better else -1.0
    curve, goal = np.maximum.accumulate(sign * baseline, axis=-1), sign * target
    place = (curve < goal[..., None]).sum(axis=-1)
    right = np.clip(place, min(1, len(labels) - 1), len(labels) - 1)
    left = np.maximum(right - 1, 0)
    y0 = np.take_along_axis(curve, left[..., None], -1)[..., 0]
    y1 = np.take_along_axis(curve, right[..., None], -1)[..., 0]
    rise = y1 - y0
    share = np.divide(goal - y0, rise, out=np.zeros_like(rise), where=rise > 0)
    x = np.log(labels)
    needed = np.exp(x[left] + np.clip(share, 0, 1) * (x[right] - x[left]))
    needed = np.where(place == 0, np.where(goal < curve[..., 0], 0.0, labels[0]), needed)
    return np.where(place == len(labels), np.inf, needed)


def efficiency_of(n: float, needed: Interval, labels: Floats) -> Efficiency:
    """Compare the labels that the baseline needs with the n that the encoder had.

    `labels` are the sizes of the baseline's learning curve, ascending.
    """
    factor = Interval(needed.value / n, needed.low / n, needed.high / n)
    first, last = float(labels[0]) / n, float(labels[-1]) / n
    if factor.value >= 1:
        words = _with_interval(factor, first, last, 1, " times fewer labels")
    elif first == 1:
        words = "not known: the baseline reaches it with its fewest labels"
    else:
        bounds = (factor.value, factor.high, factor.low)
        inverse = Interval(*(np.inf if bound == 0 else 1 / bound for bound in bounds))
        words = _with_interval(inverse, 1 / last, 1 / first, 1, " times more labels")
    text = _with_interval(needed, float(labels[0]), float(labels[-1]), 0)
    return Efficiency(n, needed, text, factor, words)


def _with_interval(number: Interval, first: float, last: float, digits: int, unit: str = "") -> str:
    """Write a number that was measured between `first` and `last`, with its interval."""

    def words(value: float) -> str:
        if value < first:
            return f"fewer than {first:.{digits}f}"
        return f"more than {last:.{digits}f}" if np.isinf(value) else f"{value:.{digits}f}"

    value, low, high = (words(bound) for bound in (number.value, number.low, number.high))
    return f"{value}{unit}" if low == high else f"{value}{unit} (95 %: {low} to {high})"
