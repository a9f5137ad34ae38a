"""The project's matplotlib style, names and colours of encoders, and figures with their texts.

Colours are from Okabe and Ito's set for colour-blind readers ("Color Universal Design", 2008),
darkened where a label in that colour would not be legible on white; each has a lighter partner for
dark pages and a marker, so that nothing depends on colour alone.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SLOTS = (
    ("--series-1", "#0067a6", "#5ab6ec", "o"),
    ("--series-2", "#b84a00", "#f28a4b", "s"),
    ("--series-3", "#00795a", "#35c79b", "^"),
    ("--series-4", "#97467b", "#e29cc4", "D"),
    ("--series-5", "#7a5c00", "#e3b93d", "v"),
    ("--series-6", "#4a4f8f", "#a5abf0", "P"),
)
"""(CSS variable, colour on white, colour on dark, marker)."""

RIGHT, WRONG = SLOTS[0][1], SLOTS[1][1]
"""Blue and orange, always with a sign or word of the same meaning."""

INK, MUTED, GRID = "#1f2430", "#616875", "#dfe2e8"
NEUTRALS = (("--ink", INK, "#e8eaf0"), ("--muted", MUTED, "#a0a7b5"), ("--grid", GRID, "#343a48"))
"""(CSS variable, colour on white, colour on dark) of text and lines."""

_SOURCES = {"imagenet": "ImageNet", "random": "random weights"}

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
    """A figure with its texts."""

    name: str  # of its files, without suffix
    figure: Figure
    title: str
    description: str  # text alternative: what the figure shows, in words and numbers
    caption: str = ""  # text below it


@contextmanager
def style() -> Iterator[None]:
    """Apply the project's style to figures made inside, or in a function that it decorates."""
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


def write_below(axes: Axes, lines: Sequence[str], width: int, right: bool | None) -> None:
    """Write lines below an image; a frame, and a sign in the last one, show right or wrong."""
    colour, sign = INK, ""
    if right is not None:
        colour, sign = (RIGHT, "✓ ") if right else (WRONG, "✗ ")
        axes.spines[:].set(visible=True, color=colour, linewidth=2.5)
    signed = [*lines[:-1], f"{sign}{lines[-1]}"]
    text = "\n".join(textwrap.shorten(line, width, placeholder="…") for line in signed)
    axes.set_xlabel(text, fontsize=9.5, color=colour, labelpad=4, parse_math=False)


@dataclass(frozen=True)
class Look:
    """How one encoder is drawn: its name for readers, its colour on white, its marker and line."""

    name: str
    colour: str
    marker: str
    line: str


def looks(encoders: Sequence[str], baseline: str | None) -> dict[str, Look]:
    """Return each encoder's look: blue for the first, orange for the baseline, green for random."""
    fixed = {encoder: 2 for encoder in encoders if encoder.startswith("random:")}
    if baseline in encoders:
        fixed[str(baseline)] = 1
    free = [slot for slot in (0, 3, 4, 5) if slot not in fixed.values()]
    places = [(slot, line) for line in ("-", "--", ":", "-.") for slot in free]
    others = iter(places)
    chosen = {}
    for encoder, name in display_names(encoders).items():
        slot, line = (fixed[encoder], "-") if encoder in fixed else next(others, places[-1])
        _, colour, _, marker = SLOTS[slot]
        chosen[encoder] = Look(name, colour, marker, line)
    return chosen


def display_names(encoders: Sequence[str]) -> dict[str, str]:
    """Return short names; an architecture or the time of a run only where others share the rest.

    Example:
        >>> list(display_names(["runs/demo-1", "imagenet:resnet18", "random:resnet18"]).values())
        ['this encoder', 'ImageNet', 'random weights']
    """
    short: dict[str, str] = {}
    for encoder in encoders:
        source, _, architecture = encoder.partition(":")
        alone = sum(other.startswith(f"{source}:") for other in encoders) == 1
        if architecture and source in _SOURCES:
            short[encoder] = _SOURCES[source] if alone else f"{_SOURCES[source]} {architecture}"
        else:
            short[encoder] = encoder.rstrip("/").rsplit("/", 1)[-1]
    own = [encoder for encoder in encoders if encoder.partition(":")[0] not in _SOURCES]
    if len(own) == 1:
        short[own[0]] = "this encoder"
    timeless = {e: re.sub(r"-\d{8}-\d{6}(?=$|@)", "", name) for e, name in short.items()}
    taken = list(timeless.values())
    return {e: timeless[e] if taken.count(timeless[e]) == 1 else name for e, name in short.items()}


def number(value: float, percent: bool, signed: bool = False) -> str:
    """Format a score: a percentage with one decimal, else four decimals below ten.

    Example:
        >>> number(0.7522, percent=True), number(0.0506, percent=False, signed=True)
        ('75.2', '+0.0506')
    """
    shown = 100 * value if percent else value
    digits = 1 if percent else (4 if abs(shown) < 10 else 2)
    text = f"{shown:+.{digits}f}" if signed else f"{shown:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")
