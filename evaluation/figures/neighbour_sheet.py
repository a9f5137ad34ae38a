"""Sheets of nearest neighbours: an image per row, and beside it what an encoder finds alike."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datamodules.core.records import TaskKind
from datamodules.display.overlays import show_patch
from evaluation.config import ProbeConfig
from evaluation.figures.canvas import Words, new_figure, save_picture, style
from evaluation.figures.palette import INK, MUTED, SLOTS, display_names
from evaluation.probe.features import Features, ProbeStore
from evaluation.probe.neighbours import Neighbours, find_neighbours

_INCHES = 1.15  # an image's side
_DPI = 120


def write_sheets(
    tables: Sequence[Features], store: ProbeStore, settings: ProbeConfig, folder: Path
) -> list[Path]:
    """Draw one sheet per encoder into `<folder>/<dataset>-<number>-<encoder>.png`.

    Args:
        tables: features of one dataset, the study's own encoder first.
        store: where its images are.
        settings: of the probes.
        folder: of the sheets.
    """
    names = display_names([table.encoder for table in tables])
    paths = []
    for number, table in enumerate(tables, start=1):
        found = find_neighbours(table, settings.neighbours, settings.map_points, settings.seed)
        name = names[table.encoder]
        file = "-".join(_file_part(part) for part in (table.dataset, str(number), name))
        title = f"{table.dataset}, {name}"
        mark = " - SYNTHETIC TISSUE" if store.synthetic else ""
        figure = draw_sheet(found, store, title + mark)
        words = Words(title, describe_sheet(found), agreement_text(found))
        paths.append(save_picture(figure, folder / f"{file}.png", words, _DPI))
    return paths


def _file_part(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", text)


def draw_sheet(found: Neighbours, store: ProbeStore, title: str) -> Figure:
    """The figure of a sheet; a tick or a cross says whether a neighbour has the same class."""
    rows, columns = len(found.queries), 1 + found.nearest.shape[1]
    with style():
        figure = new_figure(columns * (_INCHES + 0.06), rows * (_INCHES + 0.27) + 0.5)
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
        figure.suptitle(title, fontsize=10, color=INK, parse_math=False)
        grid = figure.subplots(rows, columns, squeeze=False)
        for line, query, nearest in zip(grid, found.queries, found.nearest, strict=True):
            for axes, row in zip(line, [query, *nearest], strict=True):
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
                show_patch(axes, store.images([int(row)])[0])
                _write(axes, found.table, int(query), int(row))
        grid[0, 0].set_title("image", fontsize=9.5, color=MUTED)
        grid[0, 1].set_title("nearest, of other groups", loc="left", fontsize=9.5, color=MUTED)
        return figure


def describe_sheet(found: Neighbours) -> str:
    """The sheet in words: each image with its neighbours, and how often they agree."""
    lines = [
        f"{_label(found.table, int(query))}: "
        + ", ".join(_label(found.table, int(row)) for row in nearest)
        for query, nearest in zip(found.queries, found.nearest, strict=True)
    ]
    return f"{agreement_text(found)} Images and their neighbours: {'; '.join(lines)}."


def agreement_text(found: Neighbours) -> str:
    """How far neighbours agree, over all images that were looked at."""
    count = found.nearest.shape[1]
    which = f"the {count} nearest images of other groups" if count > 1 else "the nearest image"
    if found.table.kind is TaskKind.REGRESSION:
        return (
            f"Targets of {which} differ by {found.agreement:.3f} on average, "
            f"those of random ones by {found.chance:.3f} ({found.looked_at} images)."
        )
    return (
        f"Of {which}, {100 * found.agreement:.0f} % show the same class, "
        f"of random ones {100 * found.chance:.0f} % ({found.looked_at} images)."
    )


def _write(axes: Axes, table: Features, query: int, row: int) -> None:
    """The label below an image; for a neighbour also whether it is that of the image."""
    colour, mark = INK, ""
    if table.kind is not TaskKind.REGRESSION and row != query:
        same = table.targets[row] == table.targets[query]
        colour, mark = (SLOTS[0][1], "✓ ") if same else (SLOTS[1][1], "✗ ")
        axes.spines[:].set(visible=True, color=colour, linewidth=2)
    text = textwrap.shorten(f"{mark}{_label(table, row)}", 16, placeholder="…")
    axes.set_xlabel(text, fontsize=9, color=colour, labelpad=3, parse_math=False)


def _label(table: Features, row: int) -> str:
    value = table.targets[row]
    if table.kind is TaskKind.REGRESSION:
        return f"{float(value):.2f}"
    return table.classes[int(value)]
