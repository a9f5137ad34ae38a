"""Classes and numbers of tiles or images: a CSV, and a heat map of a slide."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.core.records import TaskKind
from datamodules.slides.tiles import SlideTiles
from evaluation.figure_files import save_photograph
from evaluation.figures.canvas import INK, Drawing, clear, new_figure, style
from models.network.heads import Prediction
from models.tasks import TaskSpec

_COLUMNS, _INCHES = 3, 3.2  # classes in a row of a heat map, and the side of one


class ClassTable:
    """Collects probabilities of classes, or numbers, of all tiles or images."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self._values: list[NDArray[np.float32]] = []

    def add(self, rows: range, prediction: Prediction) -> None:
        """Keep probabilities (n, classes) or numbers (n,)."""
        if not isinstance(prediction, Tensor):
            raise TypeError(f"{self.spec.key}: expected a tensor")
        self._values.append(prediction.float().numpy().reshape(len(rows), -1))

    @property
    def values(self) -> NDArray[np.float32]:
        """What was collected, (n, classes); (n, 1) of a regression."""
        return np.concatenate(self._values)

    @property
    def names(self) -> Sequence[str]:
        """The columns of `values`."""
        return self.spec.task.classes or (self.spec.task.name,)

    def write(self, path: Path, places: Mapping[str, Sequence[Any] | NDArray[Any]]) -> None:
        """Write a CSV: the places, the most probable class, and a column for each class."""
        values, task = self.values, self.spec.task
        single = task.kind is TaskKind.CLASSIFICATION
        best = [task.classes[i] for i in values.argmax(axis=1)] if single else []
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*places, *(["predicted"] if single else []), *self.names])
            columns = [*places.values(), *([best] if single else [])]
            for number, row in enumerate(values.tolist()):
                told = [_plain(column[number]) for column in columns]
                writer.writerow([*told, *(f"{value:.5g}" for value in row)])

    def draw(self, folder: Path, tiles: SlideTiles) -> Path:
        """Write `<folder>/<dataset>-<task>.png`: the slide, and beside it a map for each class."""
        if tiles.tissue is None:
            raise ValueError(f"{tiles.path} is no slide")
        grid = np.full((tiles.rows, tiles.columns, len(self.names)), np.nan, np.float32)
        grid[tiles.cells[:, 1], tiles.cells[:, 0]] = self.values
        measured = self.spec.task.kind is TaskKind.REGRESSION
        limits = (float(np.nanmin(grid)), float(np.nanmax(grid))) if measured else (0.0, 1.0)
        with style():
            figure = self._figure(tiles, grid, limits)
        title = f"{tiles.path.name}: {self.spec.dataset}, {self.spec.task.name}"
        figure.suptitle(title, fontsize=10.5, color=INK, parse_math=False)
        means = ", ".join(
            f"{name} {value:.2f}"
            for name, value in zip(self.names, self.values.mean(axis=0), strict=True)
        )
        text = f"Heat maps over {len(tiles)} tiles; means: {means}."
        name = f"{self.spec.dataset}-{self.spec.task.name}"
        return save_photograph(Drawing(name, figure, title, text), folder)

    def _figure(self, tiles: SlideTiles, grid: NDArray[Any], limits: tuple[float, float]) -> Any:
        count = len(self.names) + 1
        columns = min(_COLUMNS, count)
        rows = -(-count // columns)
        aspect = min(2.0, max(0.4, tiles.height / tiles.width))
        figure = new_figure(columns * _INCHES + 0.7, rows * (_INCHES * aspect + 0.3) + 0.5)
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        step = tiles.tiling.step * tiles.factor
        extent = (0, tiles.columns * step, tiles.rows * step, 0)
        picture: Any = tiles.tissue.image if tiles.tissue is not None else None
        for number, axes in enumerate(cells):
            clear(axes)
            if number >= count:
                axes.set_visible(False)
                continue
            axes.imshow(picture, extent=(0, tiles.width, tiles.height, 0))
            if number:
                shown = axes.imshow(
                    grid[..., number - 1],
                    "viridis",
                    vmin=limits[0],
                    vmax=limits[1],
                    extent=extent,
                    interpolation="nearest",
                    alpha=0.8,
                )
                axes.set_title(self.names[number - 1], fontsize=9.5, color=INK, parse_math=False)
            axes.set_xlim(0, tiles.width)
            axes.set_ylim(tiles.height, 0)
        figure.colorbar(shown, ax=list(cells[:count]), fraction=0.03)
        return figure


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
