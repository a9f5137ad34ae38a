"""Glands and tumour nests: their shape, and how they are drawn.

Benign epithelium lines a lumen. With malignancy glands grow irregular, crowd and fuse, become
cribriform (several holes in a sheet of cells) and end as solid nests: the order of Gleason
patterns 3 to 5 and of the colon's grades.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.noise import FloatPoints, Grid, IdMap
from datamodules.synthetic.shapes import SHIFT, blobs, fill, fixed, placed
from datamodules.synthetic.tissues import OrganStyle

CORNERS = 64


class Growth(IntEnum):
    """How a gland is built."""

    LINED = 0
    CRIBRIFORM = 1
    SOLID = 2


@dataclass(frozen=True)
class Gland:
    """One gland or nest: its outline x, y in um, (CORNERS, 2), and what it is made of."""

    outline: FloatPoints
    centre: FloatPoints
    growth: Growth
    tumour: bool
    height_um: float
    malignancy: float


@dataclass
class Epithelium:
    """All glands of a field. The maps have shape (height, width).

    Attributes:
        ids: gland number, 0 outside; gland `i + 1` is `members[i]`; holes belong to their gland.
        holes: 255 within lumina.
        goblets: 255 within goblet cells.
        members: the glands in the order of drawing.
    """

    ids: IdMap
    holes: NDArray[np.uint8]
    goblets: NDArray[np.uint8]
    members: list[Gland]

    @classmethod
    def empty(cls, grid: Grid) -> Epithelium:
        """A field without glands."""
        ids = np.zeros(grid.shape, np.int32)
        return cls(ids, np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8), [])

    def made_of(self, tumour: bool) -> NDArray[np.bool_]:
        """Pixels of tumour, or of benign glands."""
        chosen = np.array([False, *(gland.tumour is tumour for gland in self.members)])
        return chosen[self.ids]


def grow_gland(
    rng: np.random.Generator,
    style: OrganStyle,
    centre: FloatPoints,
    radius_um: float,
    malignancy: float,
    tumour: bool,
) -> Gland:
    """Shape one gland around its centre (x, y in um)."""
    size = radius_um * float(np.exp(rng.normal(0.0, 0.10 + 0.22 * malignancy)))
    stretch = style.elongation ** float(rng.uniform(0.0, 0.5)) * (1.0 + 0.2 * malignancy)
    outline = placed(
        blobs(rng, np.array([style.folding + 0.14 * malignancy]), CORNERS),
        centre[None],
        np.array([size * stretch]),
        np.array([size / stretch]),
        rng.uniform(0.0, np.pi, 1),
    )[0]
    growth = Growth.SOLID if style.stratified else Growth.LINED
    if tumour:
        if rng.random() < np.clip((malignancy - 0.45) / 0.45, 0.0, 1.0):
            growth = Growth.SOLID
        elif rng.random() < np.clip((malignancy - 0.25) / 0.5, 0.0, 0.6):
            growth = Growth.CRIBRIFORM
    height = style.height_um * (1.0 + 0.4 * malignancy) * float(rng.uniform(0.9, 1.1))
    return Gland(outline, centre, growth, tumour, height, malignancy)


def draw_gland(
    rng: np.random.Generator,
    grid: Grid,
    style: OrganStyle,
    gland: Gland,
    epithelium: Epithelium,
    gap_um: float,
) -> None:
    """Draw a gland over what is there, with a gap of stroma around it."""
    for below in (epithelium.ids, epithelium.holes, epithelium.goblets):
        fill(below, gland.outline, grid, 0, gap_um)
    epithelium.members.append(gland)
    fill(epithelium.ids, gland.outline, grid, len(epithelium.members))
    for hole in _holes(rng, style, gland):
        fill(epithelium.holes, hole, grid, 255)
    if style.goblets and gland.growth is Growth.LINED:
        _draw_goblets(rng, grid, style, gland, epithelium)


def _holes(rng: np.random.Generator, style: OrganStyle, gland: Gland) -> list[FloatPoints]:
    """Outlines of a gland's lumina in um."""
    spokes = gland.outline - gland.centre
    radius = np.hypot(spokes[:, 0], spokes[:, 1])
    if gland.growth is Growth.SOLID:
        return []
    if gland.growth is Growth.CRIBRIFORM:
        count = int(rng.integers(3, 7))
        turn = np.linspace(0.0, CORNERS, count, endpoint=False).astype(int)
        centres = gland.centre + spokes[turn] * rng.uniform(0.3, 0.6, (count, 1))
        size = radius.mean() * rng.uniform(0.10, 0.24, count)
        shapes = blobs(rng, np.full(count, 0.12), 20)
        return list(placed(shapes, centres, size, size * 0.85, rng.uniform(0, np.pi, count)))
    wave = blobs(rng, np.array([0.02 + style.folding * 0.5]), CORNERS)[0]
    lining = gland.height_um * (1.0 + 2.0 * (np.hypot(wave[:, 0], wave[:, 1]) - 1.0))
    left = np.clip(radius - lining, 0.0, None)
    left = np.minimum(left, 1.5 * np.percentile(left, 40) + 1.0)
    if left.mean() < 2.5:
        return []
    return [gland.centre + spokes * (left / radius)[:, None]]


def _draw_goblets(
    rng: np.random.Generator,
    grid: Grid,
    style: OrganStyle,
    gland: Gland,
    epithelium: Epithelium,
) -> None:
    """Fill part of the lining with mucus; malignancy loses goblet cells."""
    spokes = gland.outline - gland.centre
    radius = np.hypot(spokes[:, 0], spokes[:, 1])
    around = float(radius.mean()) * 2 * np.pi
    count = max(3, int(around / 11.0))
    keep = rng.random(count) < style.goblets * (1.0 - gland.malignancy) ** 2
    turn = (np.arange(count) * CORNERS / count).astype(int)[keep]
    inset = gland.height_um * rng.uniform(0.52, 0.72, len(turn))
    centres = gland.outline[turn] - spokes[turn] * (inset / radius[turn])[:, None]
    size = np.minimum(rng.uniform(3.2, 5.8, len(turn)), 0.34 * gland.height_um)
    angle = np.arctan2(spokes[turn, 1], spokes[turn, 0])
    shapes = placed(blobs(rng, np.full(len(turn), 0.06), 16), centres, size * 1.25, size, angle)
    for shape in fixed(shapes, grid):
        cv2.fillPoly(epithelium.goblets, [shape], 255, cv2.LINE_8, SHIFT)
