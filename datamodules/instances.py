"""Objects out of instance maps and out of points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.records import Boxes


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
