"""Segmentation of a slide: a class per pixel, as pyramidal TIFF; of an image as PNG."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from torch import Tensor

from datamodules.core.records import Task
from datamodules.display.overlays import class_colours
from datamodules.formats.images import write_image
from datamodules.slides.pyramidal_tiff import write_labels
from datamodules.slides.tiles import SlideTiles
from models.network.heads import Prediction

NOTHING = 255
"""Value of pixels that were not analysed, for lack of tissue."""

_BACKGROUND = (235, 235, 235)


class LabelMap:
    """Collects the middle of each tile's prediction, where neighbours meet without a seam.

    The pieces wait compressed in a temporary file, so the memory does not depend on the slide.

    Args:
        task: the segmentation task.
        tiles: where the tiles lie; the step from one to the next is the side of a piece.
        scratch: folder of the temporary file.
    """

    def __init__(self, task: Task, tiles: SlideTiles, scratch: Path) -> None:
        self.task, self.tiles = task, tiles
        self.side = tiles.tiling.step
        self.height = min(-int(-tiles.height // tiles.factor), tiles.rows * self.side)
        self.width = min(-int(-tiles.width // tiles.factor), tiles.columns * self.side)
        self._file: Any = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
        self._places: dict[tuple[int, int], tuple[int, int]] = {}

    def add(self, rows: range, prediction: Prediction) -> None:
        """Keep the predictions of tiles, class indices (n, side, side)."""
        if not isinstance(prediction, Tensor):
            raise TypeError(f"{self.task.name}: expected class indices")
        margin = self.tiles.tiling.overlap // 2
        middle = slice(margin, margin + self.side)
        for row, labels in zip(rows, prediction[:, middle, middle].numpy(), strict=True):
            data = zlib.compress(np.ascontiguousarray(labels, np.uint8).tobytes(), 1)
            column, line = self.tiles.cells[row].tolist()
            self._places[column, line] = self._file.tell(), len(data)
            self._file.write(data)

    def write(self, path: Path) -> None:
        """Write the map as pyramidal TIFF with the classes' colours; 255 was not analysed."""
        write_labels(
            path, (self.height, self.width), self.side, self._level, self.mpp, self.colours
        )

    def write_image(self, path: Path) -> None:
        """Write the map as PNG at the size of the image that the tiles are from."""
        whole = np.concatenate(
            [
                np.concatenate([self._piece(c, r) for c in range(self.tiles.columns)], axis=1)
                for r in range(self.tiles.rows)
            ]
        )[: self.height, : self.width]
        size = self.tiles.width, self.tiles.height
        resized = cv2.resize(whole, size, interpolation=cv2.INTER_NEAREST_EXACT)
        write_image(path, np.asarray(resized, np.uint8))

    @property
    def mpp(self) -> float:
        """µm/px of the map."""
        return self.tiles.tiling.mpp

    @property
    def colours(self) -> NDArray[np.uint8]:
        """The palette, uint8 (256, 3)."""
        table = np.full((256, 3), 255, np.uint8)
        known = class_colours([self.task])
        for index, name in enumerate(self.task.classes):
            rgb = tuple(round(255 * part) for part in to_rgb(known[name])) if name in known else ()
            table[index] = rgb or _BACKGROUND
        return table

    def _piece(self, column: int, row: int) -> NDArray[np.uint8]:
        if (column, row) not in self._places:
            return np.full((self.side, self.side), NOTHING, np.uint8)
        offset, count = self._places[column, row]
        self._file.seek(offset)
        data = zlib.decompress(self._file.read(count))
        return np.frombuffer(data, np.uint8).reshape(self.side, self.side)

    def _level(self, step: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the TIFF tiles of a level that is `step` times coarser, in rows."""
        small = self.side // step
        for top in range(0, self.tiles.rows, step):
            for left in range(0, self.tiles.columns, step):
                tile = np.full((self.side, self.side), NOTHING, np.uint8)
                for j in range(min(step, self.tiles.rows - top)):
                    for i in range(min(step, self.tiles.columns - left)):
                        piece = self._piece(left + i, top + j)[step // 2 :: step, step // 2 :: step]
                        tile[j * small : (j + 1) * small, i * small : (i + 1) * small] = piece
                yield tile
