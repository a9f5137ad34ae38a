"""The bar chart of an ablation: what a score loses or gains without a dataset, or with it alone."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.figures.canvas import new_figure, style
from evaluation.figures.palette import INK, MUTED, SLOTS, display_names
from evaluation.statistics.ablation import Ablation
from evaluation.statistics.summary import Comparison, DatasetStatistics

COLOURS = {1: SLOTS[0][1], 0: MUTED, -1: SLOTS[1][1]}
"""Of a bar, by verdict; a bar that is clear of zero is also named so at its end."""

ROW, MARGIN, WIDTH = 0.3, 1.3, 3.6
"""Inches: height of a bar's row, of what is above and below, and width of a panel."""


def ablation_figure(ablation: Ablation) -> Figure:
    """Differences to the training on all datasets, one panel per unseen dataset.

    Right is better in every panel, also where a smaller number is.
    """
    studies = ablation.studies
    height = MARGIN + ROW * max(len(study.comparisons) for study in studies)
    with style():
        figure = new_figure(1.8 + WIDTH * len(studies), height)
        panels = figure.subplots(1, len(studies), sharey=True, squeeze=False)[0]
        for axes, study in zip(panels, studies, strict=True):
            _bars(axes, study)
        figure.supxlabel(ablation.caution, fontsize=8.5, color=MUTED)
    return figure


def describe_ablation(ablation: Ablation) -> str:
    """The chart in words, for those who do not see it."""
    parts = []
    for study in ablation.studies:
        scale, unit = _scale(study)
        bars = ", ".join(
            f"{one.encoder} {scale * one.area.value:+.3g}{unit} "
            f"({scale * one.area.low:+.3g} to {scale * one.area.high:+.3g})"
            for one in study.comparisons
        )
        parts.append(f"{study.dataset}, {study.metric.title} against all datasets: {bars}.")
    return " ".join(parts)


def _bars(axes: Axes, study: DatasetStatistics) -> None:
    scale, unit = _scale(study)
    rows = range(len(study.comparisons))
    names = display_names([curve.encoder for curve in study.curves])
    for row, one in zip(rows, study.comparisons, strict=True):
        value, low, high = (scale * v for v in (one.area.value, one.area.low, one.area.high))
        axes.barh(row, value, height=0.62, color=COLOURS[one.verdict], alpha=0.85, lw=0)
        axes.plot([low, high], [row, row], color=INK, lw=1.3, solid_capstyle="butt")
        axes.plot([low, high], [row, row], ls="", marker="|", ms=6, mew=1.3, color=INK)
        if one.verdict:
            _name_verdict(axes, row, one, study, (low, high))
    axes.axvline(0, color=MUTED, lw=1)
    axes.set_yticks(rows, [names[one.encoder] for one in study.comparisons])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.14)
    axes.set_title(study.dataset, loc="left", fontsize=10)
    if not study.metric.higher_is_better:
        axes.invert_xaxis()
    axes.set_xlabel(f"{study.metric.title}{unit} minus all datasets\n← worse     better →")


def _name_verdict(
    axes: Axes, row: int, one: Comparison, study: DatasetStatistics, ends: tuple[float, float]
) -> None:
    """A word beyond the whisker, so that nothing hangs on colour alone."""
    to_the_right = one.verdict == 1
    farther = max(ends) if to_the_right == study.metric.higher_is_better else min(ends)
    axes.annotate(
        "better" if to_the_right else "worse",
        (farther, row),
        xytext=(4 if to_the_right else -4, 0),
        textcoords="offset points",
        ha="left" if to_the_right else "right",
        va="center",
        fontsize=8.5,
        color=COLOURS[one.verdict],
    )


def _scale(study: DatasetStatistics) -> tuple[float, str]:
    return (100.0, " (points)") if study.metric.percent else (1.0, "")
