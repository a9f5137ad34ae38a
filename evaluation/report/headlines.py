"""What a report says in words: the headline, and one finding per dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.figures.palette import number
from evaluation.report.run import Study
from evaluation.statistics.bootstrap import Interval
from evaluation.statistics.metrics import Metric
from evaluation.statistics.summary import Comparison

VERDICTS = {1: "better", 0: "no clear difference", -1: "worse"}


@dataclass(frozen=True)
class Finding:
    """One dataset's result in a few words.

    Attributes:
        dataset: name.
        metric: title of its metric.
        verdict: 1 better, 0 no clear difference, -1 worse, None without a baseline.
        word: the same as a word.
        change: the difference, large on the page.
        detail: from what to what, with the interval.
    """

    dataset: str
    metric: str
    verdict: int | None
    word: str
    change: str
    detail: str


def own_encoder(studies: Sequence[Study]) -> str | None:
    """The encoder that a report is about: the first that is neither baseline nor random."""
    for study in studies[:1]:
        for curve in study.statistics.curves:
            if curve.encoder != study.baseline and not curve.encoder.startswith("random:"):
                return curve.encoder
    return None


def baseline_title(baseline: str | None) -> str:
    """What the baseline's features are called in a sentence."""
    if baseline is None:
        return "no baseline"
    source = baseline.partition(":")[0]
    return {"imagenet": "ImageNet features", "random": "features of random weights"}.get(
        source, f"features of {baseline}"
    )


def findings(studies: Sequence[Study], own: str | None) -> list[Finding]:
    """One finding per dataset about the run's own encoder."""
    return [_finding(study, own) for study in studies]


def headline(studies: Sequence[Study], own: str | None) -> str:
    """What was gained, in one or two sentences."""
    if not studies:
        return "This run holds no probes yet."
    compared = [c for study in studies if (c := comparison_of(study, own)) is not None]
    if not compared:
        return f"Frozen features, probed on {count(len(studies), 'unseen dataset')}."
    beaten = baseline_title(compared[0].baseline)
    better = sum(c.verdict == 1 for c in compared)
    worse = sum(c.verdict == -1 for c in compared)
    unclear = len(compared) - better - worse
    unseen = count(len(compared), "unseen dataset")
    if not better and not worse:
        return f"No clear difference between this encoder and {beaten} on {unseen}."
    text = f"Frozen features of this encoder beat {beaten} on {better or 'none'} of {unseen}"
    rest = []
    if unclear:
        rest.append(f"there is no clear difference on {unclear}")
    if worse:
        rest.append(f"they are worse on {worse}")
    return text + (f"; {' and '.join(rest)}." if rest else ".")


def comparison_of(study: Study, own: str | None) -> Comparison | None:
    """The own encoder's comparison with the baseline on one dataset."""
    for comparison in study.statistics.comparisons:
        if comparison.encoder == own:
            return comparison
    return None


def bracket(interval: Interval, percent: bool, signed: bool = False) -> str:
    """An interval as text: "4.1 to 18.0"."""
    low, high = (number(v, percent, signed) for v in (interval.low, interval.high))
    return f"{low} to {high}"


def label_range(labels: Sequence[float]) -> str:
    """The sizes of a study in words: "10 to 98 labelled images"."""
    first, last = f"{labels[0]:.0f}", f"{labels[-1]:.0f}"
    return f"{first} labelled images" if first == last else f"{first} to {last} labelled images"


def _finding(study: Study, own: str | None) -> Finding:
    statistics, metric = study.statistics, study.statistics.metric
    areas = {curve.encoder: curve.area for curve in statistics.curves}
    over = f"averaged over {label_range(statistics.labels)}"
    compared = comparison_of(study, own)
    if compared is None:
        encoder = own or statistics.curves[0].encoder
        unit = " %" if metric.percent else ""
        detail = f"{over}; 95 % interval {bracket(areas[encoder], metric.percent)}{unit}"
        change = number(areas[encoder].value, metric.percent) + unit
        return Finding(statistics.dataset, metric.title, None, "", change, detail)
    before, after = areas[compared.baseline].value, areas[compared.encoder].value
    return Finding(
        dataset=statistics.dataset,
        metric=metric.title,
        verdict=compared.verdict,
        word=VERDICTS[compared.verdict],
        change=_change(metric, compared.area, before),
        detail=(
            f"{_pair(metric, before, after)}, {over}; 95 % interval of the difference "
            f"{bracket(compared.area, metric.percent, signed=True)}"
        ),
    )


def _change(metric: Metric, difference: Interval, before: float) -> str:
    if metric.percent:
        return f"{number(difference.value, True, signed=True)} points"
    if before == 0:
        return number(difference.value, False, signed=True)
    return f"{number(difference.value / before, True, signed=True)} %"


def _pair(metric: Metric, before: float, after: float) -> str:
    unit = " %" if metric.percent else ""
    return f"from {number(before, metric.percent)} to {number(after, metric.percent)}{unit}"


def count(amount: int, noun: str) -> str:
    """A number of things, in the right grammatical number."""
    return f"{amount} {noun}" + ("" if amount == 1 else "s")
