"""The bar chart of an ablation: how a score changes without a dataset, or with it alone."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.figures.canvas import new_figure, style
from evaluation.figures.palette import INK, MUTED, RIGHT, WRONG, display_names
from evaluation.statistics.ablation import Ablation
from evaluation.statistics.summary import DatasetStatistics

VERDICTS = {1: ("better", RIGHT), 0: ("", MUTED), -1: ("worse", WRONG)}
"""Word at the end of a bar, so that nothing depends on colour alone, and colour."""

ROW, MARGIN, WIDTH = 0.3, 1.3, 3.6
"""Inches: height of a bar's row, of everything above and below, and width of a panel."""


def ablation_figure(ablation: Ablation) -> Figure:
    """Draw differences to the training on all datasets, one panel per unseen dataset.

    Better is always to the right, also for metrics of which smaller is better.
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


def _bars(axes: Axes, study: DatasetStatistics) -> None:
    scale, unit = (100.0, " (points)") if study.metric.percent else (1.0, "")
    names = display_names(study.encoders)
    for row, one in enumerate(study.comparisons):
        word, colour = VERDICTS[one.verdict]
        value, low, high = (scale * v for v in (one.area.value, one.area.low, one.area.high))
        axes.barh(row, value, height=0.62, color=colour, alpha=0.85, lw=0)
        axes.plot([low, high], [row, row], color=INK, lw=1.3, solid_capstyle="butt")
        axes.plot([low, high], [row, row], ls="", marker="|", ms=6, mew=1.3, color=INK)
        axes.annotate(
            word,
            (high if (one.verdict == 1) == study.metric.higher_is_better else low, row),
            xytext=(4 * one.verdict, 0),
            textcoords="offset points",
            ha="left" if one.verdict == 1 else "right",
            va="center",
            fontsize=8.5,
            color=colour,
        )
    rows = range(len(study.comparisons))
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
