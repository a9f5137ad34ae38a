"""From the codes of a published mask to class indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import LayoutError
from datamodules.core.records import Boxes, Mask
from datamodules.formats.images import read_mask


@dataclass(frozen=True)
class Codes:
    """What the pixel values of a mask mean; a picklable call target for `functools.partial`.

    Attributes:
        index: class index, or the ignore index, of each published code.
    """

    index: Mapping[int, int]

    def __call__(self, path: Path) -> Mask:
        """Read a mask file and translate it.

        Raises:
            LayoutError: a pixel holds a code that is not published.
        """
        return self.translate(str(path), read_mask(path))

    def translate(self, where: str, mask: Mask) -> Mask:
        """Class index of every pixel, uint8 of the same shape.

        Raises:
            LayoutError: a pixel holds a code that is not published.
        """
        present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
        unknown = [int(code) for code in present if int(code) not in self.index]
        if unknown:
            known = ", ".join(str(code) for code in sorted(self.index))
            raise LayoutError(f"{where}: mask holds code {unknown[0]}, expected one of {known}")
        table = np.zeros(256, np.uint8)
        for code, index in self.index.items():
            table[code] = index
        return table[mask]


def instance_boxes(ids: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The smallest box around each instance.

    Args:
        ids: whole numbers (height, width), 0 is background; ids need not be contiguous.

    Returns:
        float32 (n, 4), x1, y1, x2, y2 in pixels, the right and lower edge exclusive, and the
        ids int64 (n,) in ascending order.
    """
    y, x = np.nonzero(ids)
    found, which = np.unique(ids[y, x].astype(np.int64), return_inverse=True)
    low = np.full((len(found), 2), np.iinfo(np.int64).max)
    high = np.zeros((len(found), 2), np.int64)
    points = np.stack([x, y], axis=1)
    np.minimum.at(low, which, points)
    np.maximum.at(high, which, points + 1)
    return np.concatenate([low, high], axis=1).astype(np.float32), found


def boxes_around(
    points: NDArray[np.float32], labels: NDArray[np.int64], side: float, size: tuple[int, int]
) -> Boxes:
    """Square boxes around centres, cut off at the image's edge.

    Args:
        points: float32 (n, 2), x and y of the centres in pixels.
        labels: int64 (n,).
        side: of a box in pixels.
        size: height and width of the image in pixels.
    """
    points = points.reshape(-1, 2)
    edge = np.array([size[1], size[0]] * 2, np.float32)
    corners = np.concatenate([points - side / 2, points + side / 2], axis=1)
    return Boxes(corners.clip(0, edge).astype(np.float32), labels)
