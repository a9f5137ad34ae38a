"""Learning curves (scores against numbers of labels), and the bar chart of an ablation."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.figures.canvas import (
    INK,
    MUTED,
    RIGHT,
    WRONG,
    display_names,
    looks,
    new_figure,
    number,
    style,
)
from evaluation.statistics.ablation import Ablation
from evaluation.statistics.summary import DatasetStatistics

_COLUMNS = 3  # panels in a row of the figure of all datasets
_GAP = 0.095  # between names at the right, as a share of the axis

VERDICTS = {1: ("better", RIGHT), 0: ("", MUTED), -1: ("worse", WRONG)}
"""Word at the end of a bar, so that nothing depends on colour alone, and colour."""

_ROW, _MARGIN, _WIDTH = 0.3, 1.3, 3.6
"""Inches: height of a bar's row, of everything above and below, and width of a panel."""


@style()
def learning_curve(study: DatasetStatistics) -> Figure:
    """Draw one panel: score against labelled training images, with 95 % bands."""
    figure = new_figure(4.3, 3.0)
    _draw(figure.add_subplot(), study)
    return figure


@style()
def learning_curves(studies: Sequence[DatasetStatistics], title: str, note: str) -> Figure:
    """Draw all datasets in rows of three panels, with a title above and a note below."""
    columns = min(_COLUMNS, len(studies))
    rows = -(-len(studies) // columns)
    figure = new_figure(4.3 * columns, 3.3 * rows + 0.6)
    figure.set_layout_engine("constrained", wspace=0.05, hspace=0.08)
    title = textwrap.fill(title, 48 * columns)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    note = textwrap.fill(note, 55 * columns)
    figure.supxlabel(note, x=0.01, ha="left", fontsize=9, color=MUTED)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, study in zip(grid, studies, strict=False):
        _draw(axes, study)
        title = f"{study.dataset}\n{axes.get_title(loc='left')}"
        axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    for axes in grid[len(studies) :]:
        axes.set_axis_off()
    return figure


def describe_curve(study: DatasetStatistics) -> str:
    """Describe a panel in words."""
    drawn = looks(study.encoders, study.baseline)
    percent = study.metric.percent
    unit = " %" if percent else ""
    lines = []
    for curve in study.curves:
        points = ", ".join(
            f"{number(score.value, percent)}{unit} with {labels:.0f}"
            for labels, score in zip(study.labels, curve.scores, strict=True)
        )
        lines.append(f"{drawn[curve.encoder].name}: {points} labels.")
    return (
        f"{study.metric.title} on {study.dataset}. {' '.join(lines)} "
        f"Best constant prediction: {number(study.constant, percent)}{unit}."
    )


def _draw(axes: Axes, study: DatasetStatistics) -> None:
    scale = 100 if study.metric.percent else 1
    drawn = looks(study.encoders, study.baseline)
    ends = []
    shade = 0.13 if len(drawn) < 4 else 0.06  # many bands on each other would be one grey
    for curve in study.curves:
        look = drawn[curve.encoder]
        values, low, high = scale * np.array([(i.value, i.low, i.high) for i in curve.scores]).T
        axes.fill_between(study.labels, low, high, color=look.colour, alpha=shade, lw=0)
        if len(values) == 1:  # a band of one size has no width
            axes.vlines(study.labels, low, high, color=look.colour, lw=2)
        axes.plot(
            study.labels, values, color=look.colour, marker=look.marker, ls=look.line, markersize=5
        )
        ends.append((float(values[-1]), look.name, look.colour))
    axes.axhline(scale * study.constant, color=MUTED, ls=(0, (4, 3)), lw=1.2)
    ends.append((scale * study.constant, "constant", MUTED))
    _label_axis(axes, study.labels)
    unit = " (%)" if study.metric.percent else ""
    better = "higher is better ↑" if study.metric.higher_is_better else "lower is better ↓"
    axes.set_title(f"{study.metric.title}{unit}, {better}", loc="left", fontsize=10)
    _label_ends(axes, ends)


def _label_axis(axes: Axes, labels: Sequence[float]) -> None:
    axes.set_xscale("log")
    first, last = labels[0], labels[-1]
    near = (last / first) ** 0.1  # numbers closer than a tenth of the axis would overlap
    shown = [n for n in labels if n == last or last / n > near]
    axes.set_xticks(shown, [f"{n:.0f}" for n in shown])
    axes.minorticks_off()
    axes.set_xlim(first / (last / first) ** 0.04 / 1.01, last * (last / first) ** 0.03 * 1.01)
    axes.set_xlabel("labelled training images (log scale)")


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names at the right ends of their lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    labels = sorted(((y - low) / (high - low), name, colour) for y, name, colour in ends)
    places = np.array([y for y, _, _ in labels])
    for _ in range(100):
        close = np.flatnonzero(np.diff(places) < _GAP - 1e-6)
        if not len(close):
            break
        for i in close:
            middle = places[i : i + 2].mean()
            places[i], places[i + 1] = middle - _GAP / 2, middle + _GAP / 2
    for place, (_, name, colour) in zip(places, labels, strict=True):
        axes.annotate(
            name,
            (1.0, float(place)),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9.5,
        )


@style()
def ablation_figure(ablation: Ablation) -> Figure:
    """Draw differences to the training on all datasets, one panel per unseen dataset.

    Better is always to the right, also for metrics of which smaller is better.
    """
    studies = ablation.studies
    height = _MARGIN + _ROW * max(len(study.comparisons) for study in studies)
    figure = new_figure(1.8 + _WIDTH * len(studies), height)
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
