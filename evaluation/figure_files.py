"""Figures in files and on pages: PNG and SVG, inline SVG, and photographs with their texts."""

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from datamodules.core.atomic import atomic_path, write_text
from evaluation.figures.canvas import NEUTRALS, SLOTS, Drawing, style

DPI, PHOTOGRAPH_DPI = 200, 120
WEBP_QUALITY = 88  # keeps letters and outlines clean


@dataclass(frozen=True)
class Picture:
    """A figure or photograph for a page: heading, text below it, and svg or img element."""

    title: str
    caption: str
    markup: str


def save_drawing(drawing: Drawing, folder: Path) -> Picture:
    """Write `<folder>/<name>.png` (white) and `.svg`; return the figure for a page."""
    unnamed: Any = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    svg = io.StringIO()
    with style(), atomic_path(folder / f"{drawing.name}.png") as partial:
        drawing.figure.savefig(partial, format="png", dpi=DPI, facecolor="white")
        drawing.figure.savefig(svg, format="svg", metadata=unnamed)
    write_text(folder / f"{drawing.name}.svg", svg.getvalue())
    return Picture(drawing.title, drawing.caption, _inline(svg.getvalue(), drawing))


def _inline(svg: str, drawing: Drawing) -> str:
    """Return a figure's SVG file as an element of a page.

    Colours become the page's CSS variables, for light and dark pages, and ids become unique. The
    root element is a new one without namespaces, which are addresses that a page does not need.
    """
    name = html.escape(drawing.name)
    body = svg.partition("<svg")[2].partition(">")[2].rpartition("</svg>")[0]
    body = body.replace('id="', f'id="{name}-').replace("url(#", f"url(#{name}-")
    body = body.replace('xlink:href="#', f'href="#{name}-').replace("xlink:href", "href")
    for variable, colour, *_ in (*SLOTS, *NEUTRALS):
        body = body.replace(colour, f"var({variable})")
    width, height = 72 * drawing.figure.get_size_inches()
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{html.escape(drawing.title)}</title>'
        f'<desc id="{name}-description">{html.escape(drawing.description)}</desc>{body}</svg>'
    )


def save_photograph(drawing: Drawing, folder: Path) -> Path:
    """Write a figure with photographs and its texts as `<folder>/<name>.png`, atomically."""
    path = folder / f"{drawing.name}.png"
    texts = {"Title": drawing.title, "Description": drawing.description, "Comment": drawing.caption}
    with style(), atomic_path(path) as partial:
        drawing.figure.savefig(
            partial, format="png", dpi=PHOTOGRAPH_DPI, facecolor="white", metadata=texts
        )
    return path


def read_photograph(path: Path) -> Picture:
    """Read a PNG file for a page; without a title it is named after the file.

    It is embedded as WebP, which needs a fraction of the bytes for photographs.
    """
    with Image.open(path) as image:
        title = str(image.info.get("Title", path.stem.replace("_", " ")))
        description = html.escape(str(image.info.get("Description", title)))
        caption = str(image.info.get("Comment", ""))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    data = base64.b64encode(buffer.getvalue()).decode()
    markup = f'<img src="data:image/webp;base64,{data}" alt="{description}">'
    return Picture(title, caption, markup)
