"""Figures of a training: losses, validation metrics, and agreement of the tasks' gradients."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.figures.canvas import CENTRED, RIGHT, WRONG, new_figure, style
from evaluation.statistics.training_log import Agreement, TaskLog

_SHADES = LinearSegmentedColormap.from_list("agreement", ("#f2a36b", "#f4f4f2", "#7db7e0"))
"""Orange below zero, blue above: light enough for black numbers."""


@style()
def training_curve(log: TaskLog) -> Figure:
    """Draw loss (left) and main validation metric (right) of one task over optimizer steps."""
    figure = new_figure(3.9, 1.55)
    left, right = figure.subplots(1, 2)
    steps, loss = np.asarray(log.loss_steps), np.asarray(log.loss)
    window = max(1, len(loss) // 25)
    if window > 1:
        left.plot(steps, loss, color=RIGHT, lw=0.8, alpha=0.35)
        loss = np.convolve(loss, np.ones(window) / window, "valid")
    left.plot(steps[window - 1 :], loss, color=RIGHT, lw=1.8)
    left.set_title("training loss", loc="left", fontsize=9)
    if log.metric:
        right.plot(log.metric_steps, log.main, color=WRONG, marker="o", markersize=3.5)
        right.set_title(f"validation {log.metric}", loc="left", fontsize=9)
        if log.bounded:
            right.set_ylim(0, 1.02)
    else:
        right.set_axis_off()
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("optimizer step", fontsize=8)
    return figure


def describe_training(log: TaskLog) -> str:
    """Describe a task's curves in words."""
    text = f"Training loss from {log.loss[0]:.3f} to {log.loss[-1]:.3f}."
    if log.metric:
        text += f" Validation {log.metric} from {log.main[0]:.3f} to {log.main[-1]:.3f}."
    return text


@style()
def conflict_figure(agreements: Sequence[Agreement]) -> Figure:
    """Draw the mean cosine between the gradients of each pair of tasks as a matrix."""
    tasks = tasks_of(agreements)
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    for one in agreements:
        first, second = tasks.index(one.first), tasks.index(one.second)
        matrix[first, second] = matrix[second, first] = one.cosine
    side = 0.42 * len(tasks)
    figure = new_figure(side + 2.6, side + 1.3)
    axes = figure.add_subplot()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    # A mesh and not an image, so that the SVG stays sharp.
    axes.pcolormesh(matrix, cmap=_SHADES, vmin=-1, vmax=1, edgecolors="white", linewidth=0.5)
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            axes.text(column + 0.5, row + 0.5, _signed(value), fontsize=8, color="black", **CENTRED)
    ticks = np.arange(len(tasks)) + 0.5
    names = [task.replace("/", ": ") for task in tasks]
    axes.set_xticks(ticks, names, rotation=40, ha="right", fontsize=8.5, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=8.5, parse_math=False)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    return figure


def describe_conflicts(agreements: Sequence[Agreement]) -> str:
    """Name the most opposed and the most similar pairs in words."""
    ranked = sorted((a for a in agreements if np.isfinite(a.cosine)), key=lambda a: a.cosine)
    if not ranked:
        return "No two tasks were compared."
    opposed = sum(one.cosine < 0 for one in ranked)
    lowest, highest = (
        f"{one.first} and {one.second}, {_signed(one.cosine)}, opposed in "
        f"{100 * one.opposed:.0f} % of the rows"
        for one in (ranked[0], ranked[-1])
    )
    return (
        f"The gradients of {opposed} of {len(ranked)} pairs of tasks are opposed on average. "
        f"Most opposed: {lowest}. Most similar: {highest}."
    )


def tasks_of(agreements: Sequence[Agreement]) -> list[str]:
    """Return all tasks that were compared, in the order of the log."""
    return list(dict.fromkeys(task for one in agreements for task in (one.first, one.second)))


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
