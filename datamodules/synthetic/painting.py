"""From a plan to amounts of stain: tissue, holes, nuclei with chromatin, and mitoses."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.glands import Epithelium
from datamodules.synthetic.noise import FloatMap, FloatPoints, Grid, IdMap, edges, smooth_noise
from datamodules.synthetic.nuclei import Nuclei
from datamodules.synthetic.shapes import SHIFT, fixed
from datamodules.synthetic.texture import Amounts, Ground, matter
from datamodules.synthetic.tissues import Tissue

BLUR_UM = 0.32
"""Standard deviation of the optics' point spread, about that of a 20x objective."""


def paint(
    rng: np.random.Generator,
    ground: Ground,
    regions: NDArray[np.uint8],
    epithelium: Epithelium,
    ids: IdMap,
    cells: Nuclei,
    mitoses: FloatPoints,
    lookalikes: FloatPoints,
) -> Amounts:
    """Hematoxylin and eosin of a field.

    Args:
        rng: source of randomness.
        ground: measures of the field.
        regions: index of `Tissue` per pixel.
        epithelium: glands, holes and goblet cells.
        ids: instance of nucleus per pixel, 0 for none.
        cells: nucleus of each instance, row `i` for instance `i + 1`.
        mitoses: x, y in um, (m, 2).
        lookalikes: x, y in um, (k, 2).
    """
    grid = ground.grid
    hematoxylin = np.zeros(grid.shape, np.float32)
    eosin = np.zeros(grid.shape, np.float32)
    present = np.bincount(regions.ravel(), minlength=len(Tissue))
    for index, tissue in enumerate(Tissue):
        if present[index]:
            mask = regions == index
            blue, pink = matter(rng, tissue, ground)
            np.copyto(hematoxylin, blue, where=mask, casting="same_kind")
            np.copyto(eosin, pink, where=mask, casting="same_kind")
    if epithelium.members:
        _open_holes(rng, grid, epithelium, hematoxylin, eosin)
    _clear_around(grid, mitoses, 6.5, 0.55, hematoxylin, eosin)
    _clear_around(grid, lookalikes, 5.0, 1.5, None, eosin)
    if len(cells):
        _add_nuclei(rng, grid, ids, cells, hematoxylin, eosin)
    sigma = max(BLUR_UM / grid.mpp, 0.45)
    return (
        np.maximum(cv2.GaussianBlur(hematoxylin, (0, 0), sigma), 0.0),
        np.maximum(cv2.GaussianBlur(eosin, (0, 0), sigma), 0.0),
    )


def _open_holes(
    rng: np.random.Generator,
    grid: Grid,
    epithelium: Epithelium,
    hematoxylin: FloatMap,
    eosin: FloatMap,
) -> None:
    """Empty the lumina, with a denser rim of cytoplasm around them, and fill goblet cells."""
    width = max(3, round(3.0 / grid.mpp) | 1)
    rim = cv2.blur(epithelium.holes, (width, width)).astype(np.float32) * np.float32(1 / 255)
    eosin += 0.16 * rim * (epithelium.ids > 0)
    goblet = (epithelium.goblets > 0) & (epithelium.ids > 0)
    shade = smooth_noise(rng, grid, 2.5)
    tint = rng.uniform(0.03, 0.16)
    hematoxylin[goblet] = tint + 0.02 * shade[goblet]
    eosin[goblet] = 0.05 + 0.02 * shade[goblet]
    hole = (epithelium.holes > 0) & (epithelium.ids > 0)
    secretion = rng.uniform(0.0, 0.16) if rng.random() < 0.4 else 0.01
    hematoxylin[hole] = 0.005
    eosin[hole] = secretion * (1.0 + 0.3 * shade[hole])


def _clear_around(
    grid: Grid,
    points: FloatPoints,
    radius_um: float,
    factor: float,
    hematoxylin: FloatMap | None,
    eosin: FloatMap,
) -> None:
    """Change the cytoplasm around these points (x, y in um) by a factor."""
    if not len(points):
        return
    disc = np.zeros(grid.shape, np.float32)
    radius = round(radius_um / grid.mpp * (1 << SHIFT))
    for x, y in fixed(points, grid):
        cv2.circle(disc, (int(x), int(y)), radius, 1.0, -1, cv2.LINE_8, SHIFT)
    disc = np.asarray(cv2.GaussianBlur(disc, (0, 0), max(0.5, 1.0 / grid.mpp)), np.float32)
    for amounts in (hematoxylin, eosin):
        if amounts is not None:
            amounts *= 1.0 + np.float32(factor - 1.0) * disc


def _add_nuclei(
    rng: np.random.Generator,
    grid: Grid,
    ids: IdMap,
    cells: Nuclei,
    hematoxylin: FloatMap,
    eosin: FloatMap,
) -> None:
    """Fill nuclei with chromatin, give them a membrane and some a nucleolus."""
    rows, columns = np.nonzero(ids)
    owner = ids[rows, columns] - 1
    grain = (
        smooth_noise(rng, grid, 1.1)[rows, columns] + smooth_noise(rng, grid, 2.4)[rows, columns]
    )
    chromatin = cells.chromatin.astype(np.float32)[owner]
    amount = chromatin * (1.0 + 0.7 * cells.clumping.astype(np.float32)[owner] * grain)
    amount += cells.membrane.astype(np.float32)[owner] * edges(ids)[rows, columns]
    hematoxylin[rows, columns] = np.maximum(amount, 0.3)
    eosin[rows, columns] *= 0.7
    spots = np.flatnonzero(cells.nucleolus > 0.35 * grid.mpp)
    if len(spots):
        dots = np.zeros(grid.shape, np.float32)
        shift = rng.uniform(-0.35, 0.35, (len(spots), 2)) * cells.half_width[spots, None]
        radii = np.round(cells.nucleolus[spots] / grid.mpp * (1 << SHIFT)).astype(int)
        for (x, y), radius in zip(
            fixed(cells.centres[spots] + shift, grid).tolist(), radii.tolist(), strict=True
        ):
            cv2.circle(dots, (x, y), radius, 0.45, -1, cv2.LINE_8, SHIFT)
        hematoxylin += dots * (ids > 0)
