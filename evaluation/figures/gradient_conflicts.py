"""A figure of how far tasks want the same of the shared encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from evaluation.figures.canvas import new_figure, style
from evaluation.figures.training_log import Agreement

_SHADES = LinearSegmentedColormap.from_list("agreement", ("#f2a36b", "#f4f4f2", "#7db7e0"))
"""Orange below zero, blue above: light enough that black numbers are read on them."""


def conflict_figure(agreements: Sequence[Agreement]) -> Figure:
    """Mean cosine between the gradients of each pair of tasks, as a matrix."""
    tasks = tasks_of(agreements)
    place = {task: number for number, task in enumerate(tasks)}
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    for one in agreements:
        first, second = place[one.first], place[one.second]
        matrix[first, second] = matrix[second, first] = one.cosine
    side = 0.42 * len(tasks)
    with style():
        figure = new_figure(side + 2.6, side + 1.3)
        axes = figure.add_subplot()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        # A mesh and not an image, so that the page's SVG stays sharp.
        axes.pcolormesh(matrix, cmap=_SHADES, vmin=-1, vmax=1, edgecolors="white", linewidth=0.5)
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                axes.text(
                    *(column + 0.5, row + 0.5, f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="black",
                )
        ticks = np.arange(len(tasks)) + 0.5
        names = [task.replace("/", ": ") for task in tasks]
        axes.set_xticks(ticks, names, rotation=40, ha="right", fontsize=8.5, parse_math=False)
        axes.set_yticks(ticks, names, fontsize=8.5, parse_math=False)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.tick_params(length=0)
        return figure


def describe_conflicts(agreements: Sequence[Agreement]) -> str:
    """The most opposed and the most agreeing pairs in words."""
    ranked = sorted(
        (one for one in agreements if np.isfinite(one.cosine)), key=lambda one: one.cosine
    )
    if not ranked:
        return "No two tasks were compared."
    opposed = sum(one.cosine < 0 for one in ranked)
    text = f"{opposed} of {len(ranked)} pairs of tasks pull apart on average. "
    return f"{text}Most opposed: {_pair(ranked[0])}. Most alike: {_pair(ranked[-1])}."


def tasks_of(agreements: Sequence[Agreement]) -> list[str]:
    """All tasks that were compared, in the order in which they come."""
    return list(dict.fromkeys(task for one in agreements for task in (one.first, one.second)))


def _pair(one: Agreement) -> str:
    cosine = f"{one.cosine:+.2f}".replace("-", "\N{MINUS SIGN}")
    share = f"opposed in {100 * one.opposed:.0f} % of the rows"
    return f"{one.first} and {one.second}, {cosine}, {share}"
