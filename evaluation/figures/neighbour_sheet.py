"""Sheets of nearest neighbours: an image per row, and beside it the most similar ones."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datamodules.core.records import TaskKind
from datamodules.display.overlays import show_patch
from datamodules.store.reader import Store
from evaluation.config import ProbeConfig
from evaluation.figures.canvas import (
    INK,
    MUTED,
    RIGHT,
    WRONG,
    Drawing,
    clear,
    display_names,
    new_figure,
    style,
)
from evaluation.probe.features import Features
from evaluation.probe.neighbours import Neighbours, find_neighbours

_INCHES = 1.15  # side of an image


def neighbour_sheets(
    tables: Sequence[Features], store: Store, settings: ProbeConfig
) -> list[Drawing]:
    """Draw one sheet per encoder, named `<dataset>-<number>-<encoder>`.

    `tables` are the features of one dataset, the study's own encoder first, `store` its images.
    """
    names = display_names([table.encoder for table in tables])
    sheets = []
    for number, table in enumerate(tables, start=1):
        neighbours = find_neighbours(table, settings.neighbours, settings.map_points, settings.seed)
        name = names[table.encoder]
        parts = (re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in (table.dataset, name))
        title = f"{table.dataset}, {name}"
        mark = " - SYNTHETIC TISSUE" if store.synthetic else ""
        caption = agreement_text(neighbours)
        lines = [
            f"{neighbours.label(query)}: {', '.join(neighbours.label(row) for row in nearest)}"
            for query, nearest in zip(neighbours.queries, neighbours.nearest, strict=True)
        ]
        text = f"{caption} Images and their neighbours: {'; '.join(lines)}."
        figure = _draw(neighbours, store, title + mark)
        sheets.append(Drawing(f"-{number}-".join(parts), figure, title, text, caption))
    return sheets


def agreement_text(neighbours: Neighbours) -> str:
    """Describe how well neighbours agree, over all candidates."""
    count = neighbours.nearest.shape[1]
    which = f"the {count} nearest images of other groups" if count > 1 else "the nearest image"
    if neighbours.table.kind is TaskKind.REGRESSION:
        return (
            f"Targets of {which} differ by {neighbours.agreement:.3f} on average, "
            f"those of random ones by {neighbours.chance:.3f} ({neighbours.candidates} images)."
        )
    return (
        f"Of {which}, {100 * neighbours.agreement:.0f} % show the same class, "
        f"of random ones {100 * neighbours.chance:.0f} % ({neighbours.candidates} images)."
    )


@style()
def _draw(neighbours: Neighbours, store: Store, title: str) -> Figure:
    rows, columns = len(neighbours.queries), 1 + neighbours.nearest.shape[1]
    figure = new_figure(columns * (_INCHES + 0.06), rows * (_INCHES + 0.27) + 0.5)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    figure.suptitle(title, fontsize=10, color=INK, parse_math=False)
    grid = figure.subplots(rows, columns, squeeze=False)
    for line, query, nearest in zip(grid, neighbours.queries, neighbours.nearest, strict=True):
        for axes, row in zip(line, [query, *nearest], strict=True):
            clear(axes)
            show_patch(axes, store.images([int(neighbours.table.rows[row])])[0])
            _write(axes, neighbours, int(query), int(row))
    grid[0, 0].set_title("image", fontsize=9.5, color=MUTED)
    grid[0, 1].set_title("nearest, of other groups", loc="left", fontsize=9.5, color=MUTED)
    return figure


def _write(axes: Axes, neighbours: Neighbours, query: int, row: int) -> None:
    """Write the target below an image; a sign shows whether a neighbour has the same class."""
    table, colour, sign = neighbours.table, INK, ""
    if table.kind is not TaskKind.REGRESSION and row != query:
        same = table.targets[row] == table.targets[query]
        colour, sign = (RIGHT, "✓ ") if same else (WRONG, "✗ ")
        axes.spines[:].set(visible=True, color=colour, linewidth=2)
    text = textwrap.shorten(f"{sign}{neighbours.label(row)}", 16, placeholder="…")
    axes.set_xlabel(text, fontsize=9, color=colour, labelpad=3, parse_math=False)
