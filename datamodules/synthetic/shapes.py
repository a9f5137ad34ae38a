"""Shapes of synthetic tissue: outlines, their place on the raster, and clean instance maps."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.noise import FloatPoints, Grid, IdMap

SHIFT = 4
"""Fractional bits of the polygon coordinates that are handed to OpenCV."""


def blobs(rng: np.random.Generator, folding: FloatPoints, corners: int) -> FloatPoints:
    """Round outlines of unit radius whose edges wave.

    Args:
        rng: source of randomness.
        folding: waviness of each outline as a share of its radius, shape (n,); 0 is a circle.
        corners: points of each outline.

    Returns:
        Outlines around 0, shape (n, corners, 2).
    """
    angle = np.linspace(0.0, 2 * np.pi, corners, endpoint=False)
    order = np.arange(2, 6)
    weight = rng.standard_normal((len(folding), 4)) * folding[:, None] / np.sqrt(order - 1)
    phase = rng.uniform(0.0, 2 * np.pi, (len(folding), 4))
    wave = np.cos(order[None, :, None] * angle + phase[:, :, None])
    radius = np.clip(1.0 + (weight[:, :, None] * wave).sum(axis=1), 0.4, 1.8)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def placed(
    outlines: FloatPoints,
    centres: FloatPoints,
    half_length: FloatPoints,
    half_width: FloatPoints,
    angle: FloatPoints,
) -> FloatPoints:
    """Stretch, turn and move unit outlines (n, k, 2); all other arguments have n rows, in um."""
    x = outlines[:, :, 0] * half_length[:, None]
    y = outlines[:, :, 1] * half_width[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1) + centres[:, None, :]


def fixed(points_um: FloatPoints, grid: Grid) -> NDArray[np.int32]:
    """Points in um as OpenCV's fixed-point pixel coordinates (0 is the first pixel's centre)."""
    return np.round((points_um / grid.mpp - 0.5) * (1 << SHIFT)).astype(np.int32)


def fill(
    image: NDArray[Any], outline: FloatPoints, grid: Grid, value: int, margin_um: float = 0.0
) -> None:
    """Fill an outline (k, 2) in um, and its surroundings up to `margin_um`."""
    corners = [fixed(outline, grid)]
    cv2.fillPoly(image, corners, value, cv2.LINE_8, SHIFT)
    if margin_um > 0.0:
        thickness = max(1, round(2.0 * margin_um / grid.mpp))
        cv2.polylines(image, corners, True, value, thickness, cv2.LINE_8, SHIFT)


def tidy(ids: IdMap, least_px: int) -> tuple[IdMap, NDArray[np.intp]]:
    """Make every instance one connected piece, apart from its neighbours, numbered from 1.

    One-pixel lines are cut between touching instances; of what falls apart the largest piece
    stays; pieces below `least_px` pixels go.

    Returns:
        The new map, and for each of its instances the index (from 0) it had before.
    """
    apart = ids.copy()
    for ahead, behind, out in (
        (ids[:, 1:], ids[:, :-1], apart[:, 1:]),
        (ids[1:], ids[:-1], apart[1:]),
    ):
        out[(ahead != behind) & (ahead > 0) & (behind > 0)] = 0
    count, pieces = cv2.connectedComponents((apart > 0).astype(np.uint8), connectivity=4)
    if count == 1:
        return np.zeros_like(ids), np.zeros(0, np.intp)
    area = np.bincount(pieces.ravel(), minlength=count)
    owner = np.zeros(count, np.intp)
    owner[pieces.ravel()] = apart.ravel()
    area[0] = 0
    by_size = np.argsort(-area, kind="stable")
    _, first = np.unique(owner[by_size], return_index=True)
    kept = by_size[first]
    kept = kept[(owner[kept] > 0) & (area[kept] >= least_px)]
    kept = kept[np.argsort(owner[kept])]
    number = np.zeros(count, np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    return number[pieces], owner[kept] - 1
