"""Sheets of nearest neighbours: an image per row, and beside it the most similar ones."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from datamodules.core.records import TaskKind
from datamodules.display.overlays import show_patch
from datamodules.store.reader import Store
from evaluation.config import ProbeConfig
from evaluation.figures.canvas import (
    INK,
    MUTED,
    Drawing,
    clear,
    display_names,
    new_figure,
    style,
    write_below,
)
from evaluation.probe.features import Features
from evaluation.probe.neighbours import Neighbours, find_neighbours
from evaluation.run_files import file_name

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
        title = f"{table.dataset}, {name}"
        mark = " - SYNTHETIC TISSUE" if store.synthetic else ""
        caption = agreement_text(neighbours)
        lines = [
            f"{neighbours.label(query)}: {', '.join(neighbours.label(row) for row in nearest)}"
            for query, nearest in zip(neighbours.queries, neighbours.nearest, strict=True)
        ]
        text = f"{caption} Images and their neighbours: {'; '.join(lines)}."
        figure = _draw(neighbours, store, title + mark)
        file = f"{file_name(table.dataset)}-{number}-{file_name(name)}"
        sheets.append(Drawing(file, figure, title, text, caption))
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
    targets, classes = neighbours.table.targets, neighbours.table.classes
    rows, columns = len(neighbours.queries), 1 + neighbours.nearest.shape[1]
    figure = new_figure(columns * (_INCHES + 0.06), rows * (_INCHES + 0.27) + 0.5)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    figure.suptitle(title, fontsize=10, color=INK, parse_math=False)
    grid = figure.subplots(rows, columns, squeeze=False)
    for line, query, nearest in zip(grid, neighbours.queries, neighbours.nearest, strict=True):
        for axes, row in zip(line, [query, *nearest], strict=True):
            clear(axes)
            show_patch(axes, store.images([int(neighbours.table.rows[row])])[0])
            same = targets[row] == targets[query] if classes and row != query else None
            write_below(axes, [neighbours.label(int(row))], 16, same)
    grid[0, 0].set_title("image", fontsize=9.5, color=MUTED)
    grid[0, 1].set_title("nearest, of other groups", loc="left", fontsize=9.5, color=MUTED)
    return figure
