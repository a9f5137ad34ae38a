"""A contact sheet: stored patches with outlines, boxes and labels, to inspect before training."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from datamodules.core.atomic import atomic_path
from datamodules.core.records import Task, TaskKind
from datamodules.display.overlays import DENSE, class_colours, draw_boxes, show_patch
from datamodules.reader import DatasetReader
from datamodules.store.reader import Store

_COLUMNS = 6
_INCHES = 2.0  # a panel's side
_DPI = 150


def contact_sheet(dataset: DatasetReader, path: Path, images: int = 24) -> Path:
    """Draw at most `images` stored patches with their targets into a PNG; return its path."""
    store = dataset.store
    rows = choose_rows(store, images)
    columns = min(_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    colours = class_colours(store.tasks)
    key = 0.22 * -(-len(colours) // columns)  # inches
    height = lines * (_INCHES + 0.35) + 0.75 + key
    figure = Figure(figsize=(columns * (_INCHES + 0.1), height), dpi=_DPI)
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    figure.subplots_adjust(0.01, (0.4 + key) / height, 0.99, 1 - 0.5 / height, 0.06, 0.26)
    for axes in grid:
        axes.set_axis_off()
    for axes, row in zip(grid, rows.tolist(), strict=False):
        _panel(axes, store, row, colours)
        _caption(axes, store, row, columns)
    _title(figure, dataset, store)
    if colours:
        marks: list[Any] = [Line2D([], [], color=c, lw=4) for c in colours.values()]
        key_style: dict[str, Any] = {"loc": "lower center", "ncols": columns, "fontsize": 8}
        figure.legend(marks, list(colours), facecolor="#c8a0c0", framealpha=1, **key_style)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", pil_kwargs={"compress_level": 1})  # half of the time
    return path


def choose_rows(
    store: Store, count: int, seed: int = 0, among: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Choose at most `count` rows: classes in turn, values from low to high, objects first."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(store) if among is None else among)
    names = {task.kind: task.name for task in reversed(store.tasks)}
    if TaskKind.CLASSIFICATION in names:
        labels = store.target(names[TaskKind.CLASSIFICATION])[order]
        turn = np.empty(len(order), np.int64)  # number of earlier rows of the same class
        for label in np.unique(labels):
            turn[labels == label] = np.arange((labels == label).sum())
        order = order[np.lexsort((labels, turn))]
    elif TaskKind.REGRESSION in names:
        ranked = order[np.argsort(store.target(names[TaskKind.REGRESSION])[order])]
        steps = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
        order = ranked[steps]
    elif TaskKind.DETECTION in names:
        empty = store.object_counts(names[TaskKind.DETECTION])[order] == 0
        order = order[np.argsort(empty, kind="stable")]
    return np.asarray(order[:count], np.int64)


def label_text(store: Store, task: Task, row: int) -> str:
    """Describe a patch's label for a task; empty for dense tasks, which are drawn."""
    if task.kind in DENSE:
        return ""
    value = store.target(task.name)[row]
    if task.kind is TaskKind.CLASSIFICATION:
        return task.classes[int(value)]
    if task.kind is TaskKind.MULTILABEL:
        present = [name for name, flag in zip(task.classes, value, strict=True) if flag]
        return " + ".join(present) or "none"
    return f"{task.name} {float(value):.2f}"


def _panel(axes: Axes, store: Store, row: int, colours: dict[str, str]) -> None:
    """Draw a patch with its masks and boxes."""
    kinds = (TaskKind.SEGMENTATION, TaskKind.DETECTION)
    regions, objects = ([task for task in store.tasks if task.kind is kind] for kind in kinds)
    masks = [(task, store.masks(task.name, [row])[0]) for task in regions]
    show_patch(axes, store.images([row])[0], masks, colours)
    for task in objects:
        boxes = store.boxes(task.name, row)
        draw_boxes(axes, boxes.xyxy, [colours[task.classes[int(i)]] for i in boxes.labels])


def _caption(axes: Axes, store: Store, row: int, columns: int) -> None:
    """Write the labels of the whole patch and its source below its panel."""
    labels = [label_text(store, task, row) for task in store.tasks]
    label = textwrap.shorten(", ".join(filter(None, labels)), 42, placeholder="...")
    source = store.source(row)
    name = source if len(source) <= 40 else f"...{source[-37:]}"
    axes.text(
        *(0.5, -0.03, f"{label}\n{name}" if label else name),
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=5.5 if columns > 1 else 5,
        parse_math=False,
    )


def _title(figure: Figure, dataset: DatasetReader, store: Store) -> None:
    mpp = f"{store.mpp:.3g} µm/px" if store.mpp else "resolution unknown"
    text = f"{dataset.title}: {len(store):,} patches of {store.side} px, {mpp}"
    if store.synthetic:
        text += " - SYNTHETIC TISSUE"
    height = figure.get_size_inches()[1]
    figure.text(0.5, 1 - 0.25 / height, text, ha="center", va="center", fontsize=11)
