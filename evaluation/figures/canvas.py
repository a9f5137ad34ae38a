"""From a matplotlib figure to files, and to an SVG that takes part in a page's light and dark."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from datamodules.core.atomic import atomic_path, write_text
from evaluation.figures.palette import GRID, INK, MUTED, NEUTRALS, SLOTS

_QUALITY = 88  # of WebP: letters and outlines stay clean

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
    "svg.fonttype": "none",  # text stays text: sharp, found by search, read aloud
    "path.simplify": True,
}


@contextmanager
def style() -> Iterator[None]:
    """The project's look, for figures made inside."""
    with mpl.rc_context(STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches that no window system knows."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `<path>.png` (white, 200 dpi) and `<path>.svg`."""
    with style(), atomic_path(path.with_name(f"{path.name}.png")) as partial:
        figure.savefig(partial, format="png", dpi=200, facecolor="white")
        write_text(path.with_name(f"{path.name}.svg"), _svg(figure, path.name))


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an SVG element for a page.

    Its colours become the page's CSS variables, its letters the page's. It makes no request: the
    namespaces and metadata, which only name addresses, are left out too.

    Args:
        figure: what was drawn.
        name: unique within the page; ids are derived from it.
        title: short text alternative.
        description: what can be seen, in words and numbers.
    """
    with style():
        text = _svg(figure, name)
    text = text[text.index("<svg") :]
    for unwanted in ("<metadata>.*?</metadata>", "<!--.*?-->", "<style.*?</style>"):
        text = re.sub(unwanted, "", text, flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:xlink)?|version)="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: m.group(0) if m.group(1) in used else "", text)
    text = re.sub(r"(?:'[^']*', )*sans-serif", "inherit", text)
    text = re.sub(r"font: ([\d.]+px) inherit", r"font-size: \1; font-family: inherit", text)
    for variable, light, *_ in (*SLOTS, *NEUTRALS):
        text = text.replace(light, f"var({variable})")
    view = re.search(r'viewBox="[^"]*"', text)
    head = (
        f'<svg {view.group(0) if view else ""} role="img" '
        f'aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-text">{html.escape(description)}</desc>'
    )
    return head + text[text.index(">") + 1 :].strip()


@dataclass(frozen=True)
class Words:
    """What a picture says, kept in its file.

    Attributes:
        title: what it shows.
        text: what can be seen, for those who do not see it.
        caption: what everybody is to read below it.
    """

    title: str
    text: str
    caption: str = ""


def save_picture(figure: Figure, path: Path, words: Words, dpi: int) -> Path:
    """Write a figure with photographs as PNG with its words, complete or not at all."""
    kept = {"Title": words.title, "Description": words.text, "Comment": words.caption}
    with style(), atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi, facecolor="white", metadata=kept)
    return path


def read_picture(path: Path) -> tuple[str, Words]:
    """A PNG file for a page, as data URI, and its words.

    The page gets it as WebP, which photographs need a fraction of the bytes for. A file that does
    not say what it shows is called by its name.
    """
    with Image.open(path) as picture:
        title = str(picture.info.get("Title", path.stem.replace("_", " ")))
        text = str(picture.info.get("Description", title))
        words = Words(title, text, str(picture.info.get("Comment", "")))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "WEBP", quality=_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(), words


def theme_css() -> str:
    """The palette as CSS variables, for light and dark pages."""
    pairs = [(v, light, dark) for v, light, dark, _ in SLOTS] + list(NEUTRALS)
    light = "".join(f"{variable}:{colour};" for variable, colour, _ in pairs)
    dark = "".join(f"{variable}:{colour};" for variable, _, colour in pairs)
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):  # ids that differ between figures of a page
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata={"Date": None})
    FigureCanvasAgg(figure)
    return buffer.getvalue()
