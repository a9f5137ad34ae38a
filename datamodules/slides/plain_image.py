"""An image of any kind, read as if it were a slide of one level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import Image
from datamodules.slides.pyramid import Level


class PlainImage:
    """An image in memory; see `Pyramid`. Around it lies its mirror image instead of glass."""

    def __init__(self, path: Path, pixels: Image, mpp: float) -> None:
        self.path, self.mpp = path, mpp
        self._pixels = pixels
        self.levels: tuple[Level, ...] = (Level(pixels.shape[1], pixels.shape[0], 1.0),)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """Return a region; see `Pyramid`."""
        rows = _mirrored(y, height, self._pixels.shape[0])
        columns = _mirrored(x, width, self._pixels.shape[1])
        return np.ascontiguousarray(self._pixels[np.ix_(rows, columns)])


def _mirrored(start: int, count: int, size: int) -> NDArray[np.int64]:
    """Return indices into an axis of `size`, mirrored at its ends.

    >>> _mirrored(-2, 7, 3).tolist()
    [1, 0, 0, 1, 2, 2, 1]
    """
    index = np.arange(start, start + count) % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)
