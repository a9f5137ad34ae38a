"""Synthetic H&E tissue with exact ground truth.

`scene` draws one small field of view: nuclei with their types, glands, tissue regions, mitoses and
their look-alikes, all known to the pixel. Readers forge small copies of public datasets from it,
so that a machine without data can run everything. Malignancy changes nuclei (larger, darker,
uneven, crowded) and architecture (glands fuse and dissolve) in every task alike: what one task
teaches, another can use.

It reminds of tissue and is none: no result on it says anything about real slides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import ConfigError
from datamodules.synthetic.fibres import Terrain
from datamodules.synthetic.layout import lay_out
from datamodules.synthetic.mitoses import mitosis_counts, place_mitoses
from datamodules.synthetic.noise import Grid
from datamodules.synthetic.nuclei import Nuclei, mitotic, pyknotic
from datamodules.synthetic.painting import paint
from datamodules.synthetic.placement import draw_nuclei, populate
from datamodules.synthetic.shapes import tidy
from datamodules.synthetic.stain import Stain
from datamodules.synthetic.texture import Ground
from datamodules.synthetic.tissues import ORGANS, NucleusType, OrganStyle, Tissue, organ_style

__all__ = ["ORGANS", "NucleusType", "OrganStyle", "Scene", "Stain", "Tissue", "scene"]

COARSEST_UM = 1.0
"""Coarser fields are painted at this pixel size or below and then averaged down."""


@dataclass(frozen=True)
class Scene:
    """One field of view and what is in it.

    Pixel coordinates are continuous: pixel `i` covers `[i, i + 1)`.

    Attributes:
        image: uint8 (height, width, 3), RGB.
        mpp: pixel size in um.
        nuclei: int32 (height, width), 0 for background, instances from 1 without a gap; each is
            one connected piece and no two share an edge, unless `mpp` is coarser than 1.
        nucleus_types: uint8 (n,), `NucleusType` of instance `i + 1`.
        glands: int32 (height, width), the same for glands and tumour nests, with their lumina.
        regions: uint8 (height, width), `Tissue.code`; glands are NORMAL or TUMOUR.
        mitoses: float32 (m, 2), x, y of mitotic figures in pixels.
        lookalikes: float32 (k, 2), x, y of dark bodies that are not mitoses.
        malignancy: 0 to 1.
        cellularity: share of the field taken by tumour cells, 0 to 1.
    """

    image: NDArray[np.uint8]
    mpp: float
    nuclei: NDArray[np.int32]
    nucleus_types: NDArray[np.uint8]
    glands: NDArray[np.int32]
    regions: NDArray[np.uint8]
    mitoses: NDArray[np.float32]
    lookalikes: NDArray[np.float32]
    malignancy: float
    cellularity: float

    def boxes(self) -> NDArray[np.float32]:
        """Bounding box of each nucleus, float32 (n, 4), x1, y1, x2, y2 in pixels."""
        return _extents(self.nuclei, len(self.nucleus_types)).astype(np.float32)

    def polygons(self) -> list[NDArray[np.float64]]:
        """Outline of each nucleus, (k, 2) vertices x, y with k >= 3.

        Vertices are the centres of the outermost pixels, counted from 0 as `cv2.fillPoly` does
        (subtract 0.5 from continuous coordinates); filling them with their outline gives the
        instance back.
        """
        outlines = []
        for number, (x1, y1, x2, y2) in enumerate(
            _extents(self.nuclei, len(self.nucleus_types)).tolist(), start=1
        ):
            mask = (self.nuclei[y1:y2, x1:x2] == number).astype(np.uint8)
            found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            outline = max(found, key=len).reshape(-1, 2) + np.array([x1, y1], np.float64)
            missing = max(0, 3 - len(outline))
            outlines.append(np.concatenate([outline, np.repeat(outline[-1:], missing, axis=0)]))
        return outlines


def scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    mpp: float = 0.5,
    tissue: Tissue | None = None,
    malignancy: float | None = None,
    mitoses: int | None = None,
    lookalikes: int | None = None,
    stain: Stain | None = None,
    organ: str = "colon",
    epithelium: float | None = None,
) -> Scene:
    """Draw one field of view. The same state of `rng` gives the same bytes.

    Args:
        rng: the only source of randomness.
        height: rows of the image.
        width: columns of the image.
        mpp: pixel size in um, from 0.1 to 16.
        tissue: fill the field with one tissue; None mixes epithelium, stroma and others.
        malignancy: 0 (benign) to 1 (highest grade). None is 0, for TUMOUR 0.35 to 1 at random.
        mitoses: how many; None draws a number that grows with tumour area and malignancy.
        lookalikes: the same for dark bodies that are not mitoses.
        stain: the slide's colour; None draws one.
        organ: a key of `ORGANS`.
        epithelium: wished share of a mixed field taken by glands or tumour; None is random.

    Raises:
        ConfigError: unknown organ, a value out of range, or no room for so many mitoses.
    """
    style = organ_style(organ)
    if malignancy is None:
        malignancy = float(rng.uniform(0.35, 1.0)) if tissue is Tissue.TUMOUR else 0.0
    _check(height, width, mpp, malignancy, epithelium)
    stain = Stain.draw(rng) if stain is None else stain
    factor = max(1, math.ceil(mpp / COARSEST_UM))
    grid = Grid(height * factor, width * factor, mpp / factor)
    regions, glands = lay_out(rng, grid, style, tissue, malignancy, epithelium)
    terrain = Terrain.draw(rng, grid, fat=bool((regions == Tissue.ADIPOSE.code).any()))
    counts = mitosis_counts(rng, grid, regions, malignancy, mitoses, lookalikes)
    figures, mimics = place_mitoses(rng, grid, regions, glands.holes, *counts)
    groups = [mitotic(rng, figures), pyknotic(rng, mimics)]
    groups += populate(rng, grid, style, regions, glands, terrain, malignancy)
    drawn, cells = draw_nuclei(rng, grid, groups, foremost=sum(counts))
    drawn, kept = tidy(drawn, least_px=max(3, round(3.0 / grid.mpp**2)))
    cells = cells.take(kept)
    ground = Ground.of(grid, terrain, drawn, malignancy)
    amounts = paint(rng, ground, regions, glands, drawn, cells, figures, mimics)
    image = stain.develop(rng, *amounts)
    if factor > 1:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    middle = slice(factor // 2, None, factor)
    nuclei, seen = _renumbered(drawn[middle, middle])
    gland_ids, _ = tidy(glands.ids, least_px=1)
    return Scene(
        image=image.astype(np.uint8, copy=False),
        mpp=mpp,
        nuclei=nuclei,
        nucleus_types=cells.kinds[seen],
        glands=_renumbered(gland_ids[middle, middle])[0],
        regions=np.ascontiguousarray(regions[middle, middle]),
        mitoses=(figures / mpp).astype(np.float32),
        lookalikes=(mimics / mpp).astype(np.float32),
        malignancy=malignancy,
        cellularity=_cellularity(grid, regions, glands.holes, cells),
    )


def _check(
    height: int, width: int, mpp: float, malignancy: float, epithelium: float | None
) -> None:
    """Refuse values outside their range."""
    for name, value, low, high in (
        ("height", height, 8, 16384),
        ("width", width, 8, 16384),
        ("mpp", mpp, 0.1, 16.0),
        ("malignancy", malignancy, 0.0, 1.0),
        ("epithelium", 0.0 if epithelium is None else epithelium, 0.0, 1.0),
    ):
        if not low <= value <= high:
            raise ConfigError(f"Synthetic tissue: {name}={value} must be within {low} and {high}.")


def _renumbered(ids: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Instances numbered from 1 without a gap, and the index (from 0) each had before."""
    present = np.bincount(ids.ravel()) > 0
    present[0] = False
    number = np.cumsum(present).astype(np.int32) * present
    return number.astype(np.int32)[ids], np.flatnonzero(present) - 1


def _extents(ids: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """x1, y1, x2, y2 of every instance, the far sides exclusive."""
    rows, columns = np.nonzero(ids)
    owner = ids[rows, columns] - 1
    extents = np.empty((count, 4), np.int64)
    extents[:, :2], extents[:, 2:] = np.iinfo(np.int64).max, 0
    np.minimum.at(extents[:, 0], owner, columns)
    np.minimum.at(extents[:, 1], owner, rows)
    np.maximum.at(extents[:, 2], owner, columns + 1)
    np.maximum.at(extents[:, 3], owner, rows + 1)
    return extents


def _cellularity(
    grid: Grid, regions: NDArray[np.uint8], holes: NDArray[np.uint8], cells: Nuclei
) -> float:
    """Share of the field covered by tumour cells: tumour without its lumina."""
    tumour = (regions == Tissue.TUMOUR.code) & (holes == 0)
    return float(tumour.mean())
