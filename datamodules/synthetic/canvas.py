"""The raster that tissue is drawn on: noise, scattered points, fibres and outlines.

Lengths are in µm, so that a structure keeps its size at every magnification.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Map = NDArray[np.float32]
Ids = NDArray[np.int32]
Points = NDArray[np.float64]

_SHIFT = 4  # fractional bits of the polygon coordinates that OpenCV takes


@dataclass(frozen=True)
class Canvas:
    """A raster of pixels of `mpp` µm, and the source of randomness of all that is drawn on it.

    Points are x, y in µm, shape (n, 2); maps have the shape (height, width).
    """

    rng: np.random.Generator
    height: int
    width: int
    mpp: float

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def size_um(self) -> Points:
        """Width and height in µm."""
        return np.array([self.width, self.height]) * self.mpp

    def indices(self, points: Points) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row and column of each point; a point outside takes the nearest pixel."""
        pixels = np.clip(points / self.mpp, 0, (self.width - 1, self.height - 1)).astype(np.intp)
        return pixels[:, 1], pixels[:, 0]

    def noise(self, scale_um: float) -> Map:
        """Noise of mean 0 and deviation of about 1 whose blobs are `scale_um` wide."""
        step = scale_um / self.mpp
        if step <= 1.0:
            return self.rng.standard_normal(self.shape, np.float32)
        size = [math.ceil(side / step) + 3 for side in self.shape]
        knots = self.rng.standard_normal(size, np.float32) * np.float32(1.35)
        matrix = np.array([[step, 0.0, -step], [0.0, step, -step]], np.float32)
        # Linear interpolation is faster; its creases show only where knots are far apart.
        method = cv2.INTER_LINEAR if step < 12.0 else cv2.INTER_CUBIC
        field = cv2.warpAffine(knots, matrix, (self.width, self.height), flags=method)
        return np.asarray(field, np.float32)

    def scatter(self, pitch_um: float, jitter: float) -> Points:
        """Points of a hexagonal lattice, which reaches one pitch beyond the raster.

        `jitter` is the greatest move as a share of the pitch: 0 is a crystal, 1 nearly random.
        """
        right, bottom = self.size_um + 2 * pitch_um
        columns = np.arange(-pitch_um, right, pitch_um)
        x, y = np.meshgrid(columns, np.arange(-pitch_um, bottom, 0.866 * pitch_um))
        x[1::2] += pitch_um / 2
        points = np.stack([x.ravel(), y.ravel()], axis=1) - self.rng.uniform(0.0, pitch_um, 2)
        return points + self.rng.uniform(-jitter, jitter, points.shape) * pitch_um / 2

    def fibres(self, wave_um: float, swing_um: float) -> Map:
        """Coordinates in µm along and across wavy, roughly parallel fibres, (2, height, width)."""
        angle = self.rng.uniform(0.0, np.pi)
        y, x = np.indices(self.shape, np.float32) * np.float32(self.mpp)
        cos, sin = math.cos(angle), math.sin(angle)
        swing = self.noise(wave_um) * np.float32(swing_um)
        return np.stack([x * cos + y * sin + swing, y * cos - x * sin + swing])

    def strands(self, fibres: Map, length_um: float, thickness_um: float) -> Map:
        """Strands along fibres: mean 0, deviation of about 0.6."""
        knots = self.rng.standard_normal((127, 113), np.float32)
        x, y = fibres[0] / length_um, fibres[1] / thickness_um
        strands = cv2.remap(knots, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return np.asarray(strands, np.float32)

    def outlines(
        self,
        centres: Points,
        axes: Points,
        angle: ArrayLike = 0.0,
        folding: ArrayLike = 0.0,
        corners: int = 16,
    ) -> Points:
        """Ellipses with wavy edges, (n, corners, 2).

        `axes` are half length and half width, (n, 2), or the radius, (n, 1); `angle` is that of
        the length in radians; `folding` is the waviness of the edge as a share of the radius.
        """
        turn, order = np.linspace(0.0, 2 * np.pi, corners, endpoint=False), np.arange(2, 6)
        weight = self.rng.standard_normal((len(centres), 4)) / np.sqrt(order - 1)
        phase = self.rng.uniform(0.0, 2 * np.pi, (len(centres), 4, 1))
        wave = (weight[:, :, None] * np.cos(order[:, None] * turn + phase)).sum(axis=1)
        radius = np.clip(1.0 + np.reshape(folding, (-1, 1)) * wave, 0.4, 1.8)
        x, y = radius * np.cos(turn) * axes[:, :1], radius * np.sin(turn) * axes[:, -1:]
        cos, sin = np.cos(np.reshape(angle, (-1, 1))), np.sin(np.reshape(angle, (-1, 1)))
        return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1) + centres[:, None]

    def pixels(self, outlines: Points) -> Ids:
        """Outlines (n, k, 2) in the fixed-point coordinates that `fill_polygon` takes."""
        return np.round((outlines / self.mpp - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def fill(
        self, image: NDArray[Any], outlines: Points, value: float, margin_um: float = 0.0
    ) -> None:
        """Fill outlines (n, k, 2), and their surroundings up to `margin_um`."""
        thickness = round(2.0 * margin_um / self.mpp)
        for corners in self.pixels(outlines):
            fill_polygon(image, corners, value)
            if thickness:
                cv2.polylines(image, [corners], True, value, thickness, cv2.LINE_8, _SHIFT)


def fill_polygon(image: NDArray[Any], corners: Ids, value: float) -> None:
    """Fill one outline of `Canvas.pixels`."""
    cv2.fillPoly(image, [corners], value, cv2.LINE_8, _SHIFT)


def edges(ids: Ids) -> NDArray[np.bool_]:
    """Pixels whose 3 x 3 neighbourhood holds another value, on both sides of the border."""
    plain, kernel = ids.astype(np.float32), np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(plain, kernel) != cv2.erode(plain, kernel), np.bool_)


def separate(ids: Ids, least_px: int) -> tuple[Ids, NDArray[np.intp]]:
    """Make every instance one 4-connected piece of at least `least_px` that touches no other.

    One-pixel lines are cut between touching instances; of what falls apart the largest stays.

    Returns:
        Instances numbered from 1 without a gap, and for each the number that it had before.
    """
    apart = ids.copy()
    right, below = apart[:, 1:], apart[1:]
    right[(ids[:, 1:] != ids[:, :-1]) & (ids[:, :-1] > 0)] = 0
    below[(ids[1:] != ids[:-1]) & (ids[:-1] > 0)] = 0
    _, pieces, statistics, _ = cv2.connectedComponentsWithStats(
        (apart > 0).astype(np.uint8), connectivity=4
    )
    area = statistics[:, cv2.CC_STAT_AREA]
    owner = np.zeros(len(area), np.intp)
    owner[pieces.ravel()] = apart.ravel()
    by_size = np.argsort(area, kind="stable")
    largest = np.zeros(owner.max() + 1, np.intp)
    largest[owner[by_size]] = by_size  # of several pieces the last one stays
    kept = (largest[owner] == np.arange(len(area))) & (area >= least_px) & (owner > 0)
    return (np.cumsum(kept) * kept).astype(np.int32)[pieces], owner[kept]
