"""A panel as a figure: image, truth and prediction side by side."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from datamodules.core.records import TaskKind
from datamodules.display.overlays import DENSE, class_colours, draw_boxes, show_patch
from evaluation.figures.canvas import Words, new_figure, save_picture
from evaluation.figures.palette import INK, SLOTS
from evaluation.figures.sample_predictions import Objects, Panel, Verdict, objects_of, verdicts

RIGHT, WRONG = SLOTS[0][1], SLOTS[1][1]
"""Blue and orange of Okabe and Ito's set; a tick and a cross say the same."""

# Apart by at least 65 in CIELAB for every kind of dichromacy, and by their line styles.
HIT, MISSED, FALSE = ("#00e5ff", "-"), ("#ffe600", "--"), ("#000000", ":")
"""Colour and line style of a hit, of an object that was not found, and of a false alarm."""

_KEY = "#c8a0c0"  # behind the legend: about the tissue's colour, on which all outlines are seen
_INCHES = 2.1  # an image's side
_COLUMNS = 3  # images in a row where nothing is drawn onto them
_DPI = 110


def write_panel(panel: Panel, folder: Path) -> Path:
    """Draw a panel into `<folder>/<dataset>-<task>.png`, replacing an older one."""
    heading, _, caption = _title(panel).partition("\n")
    words = Words(heading, describe_panel(panel), caption)
    mark = " - SYNTHETIC TISSUE" if panel.synthetic else ""
    return save_picture(draw_panel(panel, mark), folder / f"{panel.name}.png", words, _DPI)


def describe_panel(panel: Panel) -> str:
    """The panel in words, for those who do not see it."""
    said = [
        f"{number}: " + (f"truth {one.truth}; predicted " if one.truth else "") + one.said
        for number, one in enumerate(verdicts(panel), start=1)
    ]
    return f"{len(panel)} validation images of {panel.spec.dataset}. {'. '.join(said)}."


def draw_panel(panel: Panel, mark: str = "") -> Figure:
    """The figure of a panel; a row per image where something is drawn onto the images.

    Args:
        panel: what to show.
        mark: appended to the title.
    """
    dense = panel.spec.task.kind in DENSE
    columns = 3 if dense else min(_COLUMNS, len(panel))
    rows = len(panel) if dense else -(-len(panel) // columns)
    height = rows * (_INCHES + 0.28 + 0.25 * (not dense)) + 0.6 + 0.3 * dense
    figure = new_figure(max(columns * (_INCHES + 0.1), 4.4), height)
    figure.suptitle(_title(panel) + mark, fontsize=10.5, color=INK, parse_math=False)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    if dense:
        _draw_rows(panel, grid)
        _legend(figure, panel)
    else:
        for axes, image, verdict in zip(grid.ravel(), panel.images, verdicts(panel), strict=False):
            show_patch(axes, image)
            _write(axes, verdict)
    return figure


def _draw_rows(panel: Panel, grid: Any) -> None:
    """Image, truth and prediction, with what is to be said below the prediction."""
    for axes, title in zip(grid[0], ("image", "truth", "prediction"), strict=True):
        axes.set_title(title, fontsize=10, color=INK)
    task, colours = panel.spec.task, class_colours([panel.spec.task])
    segments = task.kind is TaskKind.SEGMENTATION
    objects = [] if segments else objects_of(panel)
    for row, verdict in enumerate(verdicts(panel)):
        for column, axes in enumerate(grid[row]):
            masks = []
            if segments and column:
                values: Any = (panel.target, panel.prediction)[column - 1]
                masks = [(task, values[row].numpy().astype(np.uint8))]
            show_patch(axes, panel.images[row], masks, colours)
        if not segments:
            true = [colours[task.classes[i]] for i in objects[row].truth_labels]
            draw_boxes(grid[row, 1], objects[row].truth, true)
            _draw_fates(grid[row, 2], objects[row])
        grid[row, 2].set_xlabel(verdict.said, fontsize=9.5, color=INK, labelpad=3)


def _draw_fates(axes: Axes, one: Objects) -> None:
    missed = one.truth[~one.found]
    draw_boxes(axes, missed, [MISSED[0]] * len(missed), [MISSED[1]] * len(missed))
    looks = [HIT if hit else FALSE for hit in one.hit]
    draw_boxes(axes, one.said, [look[0] for look in looks], [look[1] for look in looks])


def _write(axes: Axes, verdict: Verdict) -> None:
    """Truth and prediction below an image, with a frame that says right or wrong."""
    colour, mark = INK, ""
    if verdict.right is not None:
        colour, mark = (RIGHT, "✓ ") if verdict.right else (WRONG, "✗ ")
        axes.spines[:].set(visible=True, color=colour, linewidth=2.5)
    truth = textwrap.shorten(f"truth: {verdict.truth}", 27, placeholder="…")
    said = textwrap.shorten(f"{mark}{verdict.said}", 27, placeholder="…")
    axes.set_xlabel(f"{truth}\n{said}", fontsize=9.5, color=colour, labelpad=4, parse_math=False)


def _legend(figure: Figure, panel: Panel) -> None:
    detects = panel.spec.task.kind is TaskKind.DETECTION
    marks = [
        Line2D([], [], color=colour, lw=2.5, label=f"truth: {name}" if detects else name)
        for name, colour in class_colours([panel.spec.task]).items()
    ]
    if detects:
        names = ("found", "not found", "false alarm")
        marks += [
            Line2D([], [], color=colour, ls=line, lw=2, label=name)
            for name, (colour, line) in zip(names, (HIT, MISSED, FALSE), strict=True)
        ]
    figure.legend(
        handles=marks,
        loc="outside lower center",
        ncols=min(len(marks), 4),
        fontsize=9.5,
        facecolor=_KEY,
        framealpha=1,
    )


def _title(panel: Panel) -> str:
    text = f"{panel.spec.dataset}: {panel.spec.task.name}, validation"
    if panel.spec.task.kind is TaskKind.DETECTION:
        shown = ", ".join(f"{value:.2f}" for value in panel.thresholds)
        text += f"\nscore from {shown}, centres within {panel.spec.task.match_distance_um:g} um"
    return text
