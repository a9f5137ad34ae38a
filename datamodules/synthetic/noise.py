"""Random fields with a physical length scale: smooth noise and scattered points.

Lengths are in um, so that the same structure appears at every magnification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]
IdMap = NDArray[np.int32]
FloatPoints = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """The raster a scene is painted on: height and width in pixels, pixel size in um."""

    height: int
    width: int
    mpp: float

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def area_um2(self) -> float:
        """Area of the field in square um."""
        return self.height * self.width * self.mpp**2

    def indices(self, points_um: FloatPoints) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row and column of points (n, 2) given as x, y in um; outside points go to the border."""
        column = np.clip(points_um[:, 0] / self.mpp, 0, self.width - 1).astype(np.intp)
        row = np.clip(points_um[:, 1] / self.mpp, 0, self.height - 1).astype(np.intp)
        return row, column


def smooth_noise(rng: np.random.Generator, grid: Grid, scale_um: float) -> FloatMap:
    """Noise of mean 0 and deviation of about 1 whose blobs are `scale_um` wide.

    Below the size of a pixel it is white.
    """
    step = scale_um / grid.mpp
    if step <= 1.0:
        return rng.standard_normal(grid.shape, np.float32)
    rows = math.ceil(grid.height / step) + 3
    columns = math.ceil(grid.width / step) + 3
    knots = rng.standard_normal((rows, columns), np.float32) * np.float32(1.35)
    placed = np.array([[step, 0.0, -step], [0.0, step, -step]], np.float32)
    size = (grid.width, grid.height)
    # Linear interpolation is faster; its creases show only where knots are far apart.
    method = cv2.INTER_LINEAR if step < 6.0 else cv2.INTER_CUBIC
    return np.asarray(cv2.warpAffine(knots, placed, size, flags=method), np.float32)


def scatter(rng: np.random.Generator, grid: Grid, pitch_um: float, jitter: float) -> FloatPoints:
    """Points x, y in um on a hexagonal lattice of this pitch, each moved at random.

    The lattice reaches one pitch beyond the field, so that cut objects appear at its border.

    Args:
        rng: source of randomness.
        grid: the field.
        pitch_um: distance between rows of the lattice.
        jitter: greatest move as a share of the pitch; 0 is a crystal, 1 is nearly random.
    """
    across = np.arange(-pitch_um, grid.width * grid.mpp + 2 * pitch_um, pitch_um)
    down = np.arange(-pitch_um, grid.height * grid.mpp + 2 * pitch_um, pitch_um * 0.866)
    x, y = np.meshgrid(across, down)
    x[1::2] += pitch_um / 2
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    phase = rng.uniform(0.0, pitch_um, 2)
    return points - phase + rng.uniform(-jitter, jitter, points.shape) * pitch_um / 2


def edges(ids: IdMap) -> NDArray[np.bool_]:
    """Pixels whose 3 x 3 neighbourhood holds another value, on both sides of the border."""
    plain = ids.astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(plain, kernel) != cv2.erode(plain, kernel), np.bool_)
