"""Slides as files: pyramids in TIFF, written tile by tile from one small drawn pattern."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

SIDE = 512  # of a tile


def pattern(side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Pink tissue with purple nuclei, (side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), (225, 165, 195), np.uint8)
    for x, y, radius in rng.integers((0, 0, 4), (side, side, 9), (side // 4, 3)).tolist():
        cv2.circle(image, (x, y), radius, (110, 70, 150), -1)
    return cv2.GaussianBlur(image, (5, 5), 0)


def has_tissue(width: int, height: int) -> np.ndarray:
    """Which tiles of a grid show tissue: an ellipse in the middle."""
    y, x = np.mgrid[:height, :width]
    inside = ((x + 0.5) / width - 0.5) ** 2 + ((y + 0.5) / height - 0.5) ** 2
    return inside <= 0.35**2


def write_slide(
    path: Path,
    columns: int,
    rows: int,
    mpp: float = 0.5,
    levels: int = 3,
    ome: bool = False,
    description: str | None = None,
    blank: bool = False,
) -> Path:
    """Write a pyramid of columns x rows tiles of 512 px; its levels are 4 times coarser each.

    Every tile with tissue is the same JPEG, so hundreds of megapixels take a second.
    """
    tissue = has_tissue(columns, rows) & (not blank)
    options: dict[str, Any] = {
        "dtype": np.uint8,
        "tile": (SIDE, SIDE),
        "photometric": "ycbcr",
        "compression": "jpeg",
        "subsampling": (2, 2),
    }
    if mpp and not ome:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True, ome=ome) as file:
        for level in range(levels):
            step = 4**level
            shape = -(-rows * SIDE // step), -(-columns * SIDE // step), 3
            extra: dict[str, Any] = {"metadata": None}
            if ome:
                size = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp} if mpp else {}
                extra = {"metadata": size if level == 0 else None, "subifds": 0}
                extra["subifds"] = levels - 1 if level == 0 else 0
            if level:
                extra["subfiletype"] = 1
            elif description:
                extra["description"] = description
            file.write(_tiles(tissue, step), shape=shape, **options, **extra)
    return path


def _tiles(tissue: np.ndarray, step: int) -> Iterator[bytes]:
    """The encoded tiles of one level, in rows."""
    small = cv2.resize(pattern(), (SIDE // step,) * 2, interpolation=cv2.INTER_AREA)
    white = np.full_like(small, 244)
    known: dict[bytes, bytes] = {}
    height, width = (-(-n // step) for n in tissue.shape)
    padded = np.zeros((height * step, width * step), bool)
    padded[: tissue.shape[0], : tissue.shape[1]] = tissue
    for row in range(height):
        for column in range(width):
            part = padded[row * step : (row + 1) * step, column * step : (column + 1) * step]
            key = part.tobytes()
            if key not in known:
                lines = [np.hstack([small if one else white for one in line]) for line in part]
                picture = cv2.cvtColor(np.vstack(lines), cv2.COLOR_RGB2BGR)
                known[key] = cv2.imencode(".jpg", picture)[1].tobytes()
            yield known[key]
