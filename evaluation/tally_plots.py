"""Figures of what validation counted: a confusion matrix, curves of precision and recall."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from evaluation.drawing import new_figure, style
from evaluation.palette import MUTED, SLOTS
from evaluation.tallies import Counts, Tally

CONFUSION, RECALL = "confusion", "precision_recall"
"""Ends of the files' names."""

_CURVES = 12  # more classes than that are drawn, but not named


def confusion_figure(tally: Tally, matrix: Counts, note: str = "") -> Figure:
    """Images by true class (rows) and predicted class; shades are shares of the row.

    Args:
        tally: whose task names the classes.
        matrix: (classes, classes).
        note: appended to the title.
    """
    classes = tally.spec.task.classes
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = 1.6 + 0.42 * len(classes)
    with style():
        figure = new_figure(max(side + 0.8, 3.6), max(side, 2.6))
        axes = figure.add_subplot()
        axes.grid(False)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                dark = share[row, column] > 0.55
                axes.text(
                    *(column, row, f"{count:.0f}"),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="white" if dark else "black",
                )
        ticks = np.arange(len(classes))
        axes.set_xticks(ticks, classes, rotation=45, ha="right", fontsize=8, parse_math=False)
        axes.set_yticks(ticks, classes, fontsize=8, parse_math=False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(f"{tally.spec.key}{note}", loc="left", fontsize=9.5, parse_math=False)
        return figure


def precision_recall_figure(tally: Tally, note: str = "") -> Figure:
    """Precision against recall, one line per class."""
    with style():
        figure = new_figure(4.3, 3.0)
        axes = figure.add_subplot()
        curves = tally.curves()
        for number, curve in enumerate(curves):
            _, colour, _, marker = SLOTS[number % len(SLOTS)]
            axes.plot(
                curve.recall,
                curve.precision,
                color=colour,
                marker=marker,
                markersize=4,
                markevery=max(1, len(curve.recall) // 8),
                lw=1.6,
                label=f"{curve.name}: average {curve.average:.3f}",
            )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision", color=MUTED)
        axes.set_title(f"{tally.spec.key}{note}", loc="left", fontsize=9.5, parse_math=False)
        if len(curves) <= _CURVES:
            axes.legend(frameon=False, fontsize=8)
        return figure


def describe_confusion(tally: Tally, matrix: Counts) -> str:
    """The matrix in words, for those who do not see it."""
    classes = tally.spec.task.classes
    rows = [
        f"{name}: {row[i]:.0f} of {row.sum():.0f} right"
        + "".join(
            f", {count:.0f} taken for {classes[other]}"
            for other, count in enumerate(row)
            if count and other != i
        )
        for i, (name, row) in enumerate(zip(classes, matrix, strict=True))
        if row.sum()
    ]
    return f"Confusion matrix. {'. '.join(rows)}."


def describe_recall(tally: Tally) -> str:
    """The curves in words, for those who do not see them."""
    lines = [f"{curve.name} {curve.average:.3f}" for curve in tally.curves()]
    return f"Precision against recall. Average precision: {', '.join(lines)}."
