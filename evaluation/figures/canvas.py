"""The project's matplotlib style, and a figure together with its texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.figures.palette import GRID, INK, MUTED

STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "svg.fonttype": "none",  # text stays text: sharp, searchable and accessible
    "svg.hashsalt": "figure",  # the same figure has the same ids
    "path.simplify": True,
}

CENTRED: Any = {"ha": "center", "va": "center"}
"""Alignment of a text."""


@dataclass(frozen=True)
class Drawing:
    """A figure with its texts.

    Attributes:
        name: of its files, without suffix.
        description: text alternative: what the figure shows, in words and numbers.
        caption: text below it.
    """

    name: str
    figure: Figure
    title: str
    description: str
    caption: str = ""


@contextmanager
def style() -> Iterator[None]:
    """Apply the project's style to figures made inside."""
    with mpl.rc_context(STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of a size in inches that is independent of window systems."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def clear(axes: Axes) -> None:
    """Remove ticks, frame and grid, as for a photograph or a map."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(False)
