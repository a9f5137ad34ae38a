"""The texts of a report: the headline, and one finding per dataset."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.figures.canvas import display_names, number
from evaluation.statistics.bootstrap import Interval
from evaluation.statistics.summary import Comparison, DatasetStatistics

VERDICTS = {1: "better", 0: "no clear difference", -1: "worse"}


@dataclass(frozen=True)
class Finding:
    """One dataset's result in a few words."""

    dataset: str
    metric: str  # title of its metric
    verdict: int | None  # 1 better, 0 no clear difference, -1 worse, None without a baseline
    word: str  # the verdict
    change: str  # the difference, large on the page
    detail: str  # from what to what, with the interval


def own_encoder(studies: Sequence[DatasetStatistics]) -> str | None:
    """Return the encoder that a report is about: the first that is neither baseline nor random."""
    for study in studies[:1]:
        for encoder in study.encoders:
            if encoder != study.baseline and not encoder.startswith("random:"):
                return encoder
    return None


def baseline_title(baseline: str | None) -> str:
    """Return the name of the baseline's features in a sentence."""
    if baseline is None:
        return "no baseline"
    names = {"imagenet": "ImageNet features", "random": "features of random weights"}
    return names.get(baseline.partition(":")[0], f"features of {baseline}")


def headline(studies: Sequence[DatasetStatistics]) -> str:
    """Return the result of a study in one or two sentences."""
    if not studies:
        return "This run has no probes yet."
    compared = [one for one in _own_comparisons(studies) if one]
    if not compared:
        return f"Frozen features, probed on {count(len(studies), 'unseen dataset')}."
    beaten = baseline_title(compared[0].baseline)
    own = display_names(studies[0].encoders)[compared[0].encoder]
    verdicts = [comparison.verdict for comparison in compared]
    better, unclear, worse = (verdicts.count(verdict) for verdict in (1, 0, -1))
    unseen = count(len(compared), "unseen dataset")
    if not better and not worse:
        return f"No clear difference between {own} and {beaten} on {unseen}."
    rest = [f"there is no clear difference on {unclear}"] if unclear else []
    rest += [f"they are worse on {worse}"] if worse else []
    text = f"Frozen features of {own} beat {beaten} on {better or 'none'} of {unseen}"
    return text + (f"; {' and '.join(rest)}." if rest else ".")


def findings(studies: Sequence[DatasetStatistics]) -> list[Finding]:
    """Return one finding per dataset about the run's own encoder."""
    own = own_encoder(studies)
    pairs = zip(studies, _own_comparisons(studies), strict=True)
    return [_finding(study, own, comparison) for study, comparison in pairs]


def _own_comparisons(studies: Sequence[DatasetStatistics]) -> list[Comparison | None]:
    """Return the comparison of the run's own encoder with the baseline on each dataset."""
    own = own_encoder(studies)
    return [next((c for c in study.comparisons if c.encoder == own), None) for study in studies]


def _finding(study: DatasetStatistics, own: str | None, compared: Comparison | None) -> Finding:
    metric, percent = study.metric, study.metric.percent
    areas = {curve.encoder: curve.area for curve in study.curves}
    first, last = f"{study.labels[0]:.0f}", f"{study.labels[-1]:.0f}"
    labels = first if first == last else f"{first} to {last}"
    over, unit = f"averaged over {labels} labelled images", " %" if percent else ""
    if compared is None:
        area = areas[own or study.encoders[0]]
        detail = f"{over}; 95 % interval {bracket(area, percent)}{unit}"
        change = number(area.value, percent) + unit
        return Finding(study.dataset, metric.title, None, "", change, detail)
    before, after = areas[compared.baseline].value, areas[compared.encoder].value
    value = compared.area.value
    if percent or before == 0:
        change = number(value, percent, signed=True) + (" points" if percent else "")
    else:
        change = f"{number(value / before, True, signed=True)} %"
    detail = (
        f"from {number(before, percent)} to {number(after, percent)}{unit}, {over}; "
        f"95 % interval of the difference {bracket(compared.area, percent, signed=True)}"
    )
    word = VERDICTS[compared.verdict]
    return Finding(study.dataset, metric.title, compared.verdict, word, change, detail)


def bracket(interval: Interval, percent: bool, signed: bool = False) -> str:
    """Write an interval as text: "4.1 to 18.0"."""
    low, high = (number(v, percent, signed) for v in (interval.low, interval.high))
    return f"{low} to {high}"


def count(amount: int, noun: str) -> str:
    """Write a number of things in the right grammatical number."""
    return f"{amount} {noun}" + ("" if amount == 1 else "s")
