"""What gives connective tissue its direction: wavy fibres, and the septa between fat cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.noise import FloatMap, FloatPoints, Grid, edges, scatter, smooth_noise


def slope_along(field: FloatMap, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> FloatPoints:
    """Angle in radians (x to the right, y down) in which a field stays level at these pixels."""
    height, width = field.shape
    right, left = np.minimum(columns + 2, width - 1), np.maximum(columns - 2, 0)
    down, up = np.minimum(rows + 2, height - 1), np.maximum(rows - 2, 0)
    slope_x = (field[rows, right] - field[rows, left]) / np.maximum(right - left, 1)
    slope_y = (field[down, columns] - field[up, columns]) / np.maximum(down - up, 1)
    return np.asarray(np.arctan2(-slope_x, slope_y), np.float64)


@dataclass(frozen=True)
class Fibres:
    """A bundle of wavy, roughly parallel fibres.

    Attributes:
        along, across: coordinates in um along and across the bundle, shape (height, width).
    """

    along: FloatMap
    across: FloatMap

    @classmethod
    def draw(cls, rng: np.random.Generator, grid: Grid, wave_um: float, swing_um: float) -> Fibres:
        """A bundle in a random direction that swings `swing_um` over lengths of `wave_um`."""
        angle = rng.uniform(0.0, np.pi)
        x = np.arange(grid.width, dtype=np.float32)[None, :] * np.float32(grid.mpp)
        y = np.arange(grid.height, dtype=np.float32)[:, None] * np.float32(grid.mpp)
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        swing = smooth_noise(rng, grid, wave_um) * np.float32(swing_um)
        return cls(along=x * cos + y * sin + swing, across=y * cos - x * sin + swing)

    def texture(self, rng: np.random.Generator, length_um: float, thickness_um: float) -> FloatMap:
        """Strands of this length and thickness: mean 0, deviation of about 0.6."""
        strands = rng.standard_normal((127, 113), np.float32)
        return np.asarray(
            cv2.remap(
                strands,
                self.along / np.float32(length_um),
                self.across / np.float32(thickness_um),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_WRAP,
            ),
            np.float32,
        )

    def direction(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> FloatPoints:
        """Angle in radians of the fibres at these pixels."""
        return slope_along(self.across, rows, columns)


def fat_cells(rng: np.random.Generator, grid: Grid) -> FloatMap:
    """Distance in um of each pixel from the septa between polygonal fat cells of 50 to 80 um."""
    raster_um, pad = 1.0, 60.0
    rows, columns = (int((side * grid.mpp + 2 * pad) / raster_um) + 1 for side in grid.shape)
    wide = Grid(rows, columns, raster_um)
    free = np.ones(wide.shape, np.uint8)
    free[wide.indices(scatter(rng, wide, rng.uniform(50.0, 74.0), 0.6))] = 0
    _, nearest = cv2.distanceTransformWithLabels(
        free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    inside = (~edges(np.asarray(nearest, np.int32))).astype(np.uint8)
    away = np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5), np.float32)
    away = cv2.GaussianBlur(away, (0, 0), 1.0) * np.float32(raster_um)
    x = np.arange(grid.width, dtype=np.float32)[None, :] * np.float32(grid.mpp)
    y = np.arange(grid.height, dtype=np.float32)[:, None] * np.float32(grid.mpp)
    bend = 2.5 * smooth_noise(rng, grid, 26.0) + np.float32(pad)
    at_x = (x + bend) / np.float32(raster_um)
    at_y = (y - bend + np.float32(2 * pad)) / np.float32(raster_um)
    distance = np.asarray(cv2.remap(away, at_x, at_y, cv2.INTER_LINEAR), np.float32)
    return np.asarray(np.maximum(distance - np.float32(0.6), 0.0), np.float32)


@dataclass(frozen=True)
class Terrain:
    """What connective tissue follows in one field.

    Attributes:
        fibres: bundle of stroma and muscle.
        fat_um: distance from the septa of fat in um, shape (height, width).
    """

    fibres: Fibres
    fat_um: FloatMap

    @classmethod
    def draw(cls, rng: np.random.Generator, grid: Grid, fat: bool) -> Terrain:
        """A terrain; septa are worked out only where there is fat."""
        fibres = Fibres.draw(rng, grid, wave_um=45.0, swing_um=float(rng.uniform(2.0, 8.0)))
        return cls(fibres, fat_cells(rng, grid) if fat else np.zeros(grid.shape, np.float32))
