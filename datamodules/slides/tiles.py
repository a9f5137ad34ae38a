"""Tiles of a slide: a grid at one resolution, of which the squares with tissue are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import SlideError
from datamodules.core.records import Image
from datamodules.slides.opening import open_slide
from datamodules.slides.pyramid import Pyramid, known_mpp, level_for, read_scaled
from datamodules.slides.tissue import Tissue, find_tissue

_DRAWN = 1024  # pixels of the drawn thumbnail's longer side


@dataclass(frozen=True)
class Tiling:
    """How slides are cut.

    Attributes:
        side: of a tile in pixels.
        mpp: µm/px of a tile.
        overlap: pixels that two neighbours share.
        least_tissue: smallest share of tissue in a tile that is kept.
        slide_mpp: µm/px of level 0 of slides that state none, or a wrong one; 0 trusts the file.
        centred: neighbours share half of the overlap on each side, so that the centres of tiles
            cover the slide; else the first tile begins at the slide's corner.
    """

    side: int
    mpp: float
    overlap: int = 0
    least_tissue: float = 0.25
    slide_mpp: float = 0.0
    centred: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.side:
            raise SlideError(f"--overlap {self.overlap}: must be below the tile's {self.side} px")

    @property
    def step(self) -> int:
        """Pixels from one tile to the next."""
        return self.side - self.overlap


class SlideTiles:
    """The tiles of one slide that hold tissue, in rows from the upper left.

    Args:
        path: the slide.
        tiling: how it is cut.
        picture: opens an image instead; it has tissue everywhere.

    Attributes:
        slide_mpp: µm/px of level 0.
        tissue: where the tissue lies; None for an image.
        cells: int64 (n, 2), column and row of each tile in the grid.
        corners: int64 (n, 2), x and y of each tile in pixels of level 0.
        span: side of a tile in pixels of level 0.

    Raises:
        SlideError: it cannot be read, is too coarse or holds no tissue.
    """

    def __init__(
        self, path: Path, tiling: Tiling, picture: Callable[[Path], Pyramid] | None = None
    ) -> None:
        self.path, self.tiling, self._open = path, tiling, picture or open_slide
        slide = self.slide
        self.slide_mpp = known_mpp(slide, tiling.slide_mpp)
        self.level = level_for(slide, self.slide_mpp, tiling.mpp)
        self.width, self.height = slide.levels[0].width, slide.levels[0].height
        self.factor = tiling.mpp / self.slide_mpp  # pixels of level 0 per pixel of a tile
        self.span = tiling.side * self.factor
        self.tissue: Tissue | None = None if picture else find_tissue(slide, self.slide_mpp)
        columns, rows = (-(-n // (tiling.step * self.factor)) for n in (self.width, self.height))
        self.columns, self.rows = int(columns), int(rows)
        grid = np.indices((self.rows, self.columns)).reshape(2, -1).T[:, ::-1]
        margin = tiling.overlap // 2 if tiling.centred else 0
        corners = np.rint((grid * tiling.step - margin) * self.factor).astype(np.int64)
        kept = np.ones(len(grid), bool)
        if self.tissue is not None:
            # Of a centred tile only the middle counts: its neighbours have the rest in theirs.
            side = (tiling.step if tiling.centred else tiling.side) * self.factor
            places = corners + round(margin * self.factor)
            kept = self.tissue.share(places, side) >= max(tiling.least_tissue, 1e-9)
        self.cells, self.corners = grid[kept], corners[kept]
        if not len(self.cells):
            least = f"{100 * tiling.least_tissue:g} % of tissue; lower --tissue, or"
            found = least if self.tissue and self.tissue.mask.any() else "tissue;"
            raise SlideError(f"{path}: no tile with {found} leave the slide out")

    def __len__(self) -> int:
        return len(self.corners)

    def __getstate__(self) -> dict[str, object]:
        """Leave out the open file: each process opens its own."""
        return {key: value for key, value in vars(self).items() if key != "_opened"}

    @property
    def slide(self) -> Pyramid:
        """The slide, opened by the process that asks."""
        if vars(self).get("_opened", (0,))[0] != os.getpid():
            self._opened = os.getpid(), self._open(self.path)
        return self._opened[1]

    def read(self, rows: range) -> NDArray[np.uint8]:
        """Return tiles, (n, side, side, 3).

        Raises:
            SlideError: one does not decode.
        """
        side = self.tiling.side
        corners = self.corners[rows.start : rows.stop].tolist()
        tiles = [read_scaled(self.slide, self.level, x, y, self.span, side) for x, y in corners]
        return np.stack(tiles)

    @cached_property
    def drawn(self) -> Image:
        """The slide at low resolution with the outline of its tissue and the kept tiles."""
        if self.tissue is None:
            raise ValueError(f"{self.path} is no slide")
        scale = min(1.0, _DRAWN / max(self.tissue.mask.shape))
        size = tuple(max(1, round(n * scale)) for n in self.tissue.mask.shape[::-1])
        small = cv2.resize(self.tissue.image, size, interpolation=cv2.INTER_AREA)
        image = np.array(small, np.uint8)
        mask = cv2.resize(self.tissue.mask.astype(np.uint8), size)
        per_px = self.tissue.scale / scale
        for corner in self.corners:
            ends = ((corner + n) / per_px for n in (0, self.span))
            low, high = (np.rint(end).astype(int).tolist() for end in ends)
            cv2.rectangle(image, low, high, (16, 48, 255), 1)
        outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(image, outlines, -1, (0, 160, 0), 2)
        return image
