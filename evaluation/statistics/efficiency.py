"""Sample efficiency: the labels that a baseline needs for what an encoder reaches with fewer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.statistics.bootstrap import Interval
from evaluation.statistics.metrics import Floats


@dataclass(frozen=True)
class Efficiency:
    """How many labels the baseline needs for what an encoder reaches with n.

    Attributes:
        labels: labels that the encoder had.
        needed: labels that the baseline needs; 0 means fewer than its smallest subset, infinity
            more than its largest.
        text: the same in words, with its interval.
        factor: needed / labels, with the same meaning of 0 and infinity.
        factor_text: the same in words: "5.2 times fewer labels (95 %: 3.1 to 8.9)".
    """

    labels: float
    needed: Interval
    text: str
    factor: Interval
    factor_text: str


def labels_needed(
    labels: Floats, baseline: Floats, target: Floats, higher_is_better: bool
) -> Floats:
    """Labels at which the baseline's learning curve reaches a score.

    The curve is made monotone (the best so far) and is read linearly in log(labels). Nothing is
    read off outside of what was measured.

    Args:
        labels: ascending, (sizes,).
        baseline: its scores, (..., sizes).
        target: scores to reach, (...).
        higher_is_better: direction of the metric.

    Returns:
        (...): 0 where already fewer than the smallest size do, infinity where all do not.
    """
    sign = 1.0 if higher_is_better else -1.0
    curve, wanted = np.maximum.accumulate(sign * baseline, axis=-1), sign * target
    at = (curve < wanted[..., None]).sum(axis=-1)
    right = np.clip(at, 1, max(len(labels) - 1, 1)) if len(labels) > 1 else np.zeros_like(at)
    left = np.maximum(right - 1, 0)
    y0 = np.take_along_axis(curve, left[..., None], -1)[..., 0]
    y1 = np.take_along_axis(curve, right[..., None], -1)[..., 0]
    rise = y1 - y0
    share = np.divide(wanted - y0, rise, out=np.zeros_like(rise), where=rise > 0)
    x = np.log(labels)
    found = np.exp(x[left] + np.clip(share, 0, 1) * (x[right] - x[left]))
    found = np.where(at == 0, np.where(wanted < curve[..., 0], 0.0, labels[0]), found)
    return np.where(at == len(labels), np.inf, found)


def efficiency_of(n: float, needed: Interval, labels: Floats) -> Efficiency:
    """What was read off, and the same in words.

    Args:
        n: labels that the encoder had.
        needed: labels that the baseline needs.
        labels: sizes of the baseline's learning curve, ascending.
    """
    factor = Interval(needed.value / n, needed.low / n, needed.high / n)
    text = _with_interval(needed, float(labels[0]), float(labels[-1]), 0)
    return Efficiency(n, needed, text, factor, _factor_in_words(n, factor, labels))


def _factor_in_words(n: float, factor: Interval, labels: Floats) -> str:
    first, last = float(labels[0]) / n, float(labels[-1]) / n
    if factor.value >= 1:
        return _with_interval(factor, first, last, 1, " times fewer labels")
    if first == 1:
        return "not known: the baseline reaches it with its fewest labels"
    low, high = (np.inf if bound == 0 else 1 / bound for bound in (factor.high, factor.low))
    value = np.inf if factor.value == 0 else 1 / factor.value
    turned = Interval(float(value), float(low), float(high))
    return _with_interval(turned, 1 / last, 1 / first, 1, " times more labels")


def _with_interval(found: Interval, first: float, last: float, digits: int, unit: str = "") -> str:
    """A number that was read between `first` and `last`, with its interval."""

    def word(value: float) -> str:
        if value < first:
            return f"fewer than {first:.{digits}f}"
        return f"more than {last:.{digits}f}" if np.isinf(value) else f"{value:.{digits}f}"

    value, low, high = (word(bound) for bound in (found.value, found.low, found.high))
    return f"{value}{unit}" if low == high else f"{value}{unit} (95 %: {low} to {high})"
