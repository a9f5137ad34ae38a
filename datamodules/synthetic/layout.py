"""Where things lie in a synthetic field: patches of tissue, and epithelium among them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.glands import Epithelium, draw_gland, grow_gland
from datamodules.synthetic.noise import Grid, scatter, smooth_noise
from datamodules.synthetic.tissues import OrganStyle, Tissue

TUMOUR_ONSET = (0.05, 0.30)
"""Malignancy below which no gland of a mixed field is tumour, and above which all are."""


def lay_out(
    rng: np.random.Generator,
    grid: Grid,
    style: OrganStyle,
    tissue: Tissue | None,
    malignancy: float,
    share: float | None,
) -> tuple[NDArray[np.uint8], Epithelium]:
    """Plan a field: of one tissue, or mixed where `tissue` is None.

    Args:
        rng: source of randomness.
        grid: the field.
        style: the organ.
        tissue: NORMAL and TUMOUR are glands or nests in little stroma.
        malignancy: 0 to 1.
        share: wished share of the field for epithelium; None leaves it to chance.

    Returns:
        Index of `Tissue` per pixel, shape (height, width), and the epithelium.
    """
    glandular = tissue in (None, Tissue.NORMAL, Tissue.TUMOUR)
    base = Tissue.STROMA if glandular or tissue is None else tissue
    regions = np.full(grid.shape, base.code, np.uint8)
    epithelium = Epithelium.empty(grid)
    if not glandular:
        return regions, epithelium
    if tissue is None:
        _add_patches(rng, grid, style, malignancy, regions)
        low, high = TUMOUR_ONSET
        tumour_share = float(np.clip((malignancy - low) / (high - low), 0.0, 1.0))
        wished = rng.uniform(0.15, 0.65) if share is None else share
    else:
        tumour_share = float(tissue is Tissue.TUMOUR)
        wished = 1.0 if share is None else share
    _add_epithelium(rng, grid, style, regions, epithelium, malignancy, tumour_share, wished)
    return regions, epithelium


def _add_patches(
    rng: np.random.Generator,
    grid: Grid,
    style: OrganStyle,
    malignancy: float,
    regions: NDArray[np.uint8],
) -> None:
    """Let other tissues take parts of a stromal field; tumours bring necrosis with them."""
    for tissue, probability in (*style.beside, (Tissue.DEBRIS, 0.25 * malignancy)):
        if rng.random() < probability:
            field = smooth_noise(rng, grid, rng.uniform(60.0, 140.0))
            level = np.quantile(field[::4, ::4], rng.uniform(0.70, 0.90))
            regions[field > level] = tissue.code


def _add_epithelium(
    rng: np.random.Generator,
    grid: Grid,
    style: OrganStyle,
    regions: NDArray[np.uint8],
    epithelium: Epithelium,
    malignancy: float,
    tumour_share: float,
    wished: float,
) -> None:
    """Grow glands, neighbours first, until they take the wished share of the field."""
    crowding = malignancy * tumour_share
    radius = style.gland_um * (1.0 + 0.25 * crowding)
    pitch = 2.0 * radius + style.gap_um * (1.0 - crowding)
    pitch *= (0.9 if wished == 1.0 else 1.0) * (1.0 - 0.16 * crowding)
    centres = scatter(rng, grid, pitch, 0.25 + 0.4 * crowding)
    rows, columns = grid.indices(centres)
    in_stroma = regions[rows, columns] == Tissue.STROMA.code
    together = smooth_noise(rng, grid, 90.0)[rows, columns]
    order = np.argsort(np.where(in_stroma, together, np.inf))[: int(in_stroma.sum())]
    gap = style.gap_um * 0.35 * (1.0 - 0.8 * crowding)
    far = np.array([grid.width, grid.height]) * grid.mpp
    covered = 0.0
    for index in order:
        if covered >= wished * grid.area_um2:
            break
        tumour = bool(rng.random() < tumour_share)
        gland = grow_gland(
            rng, style, centres[index], radius, malignancy if tumour else 0.0, tumour
        )
        low, high = gland.outline.min(axis=0), gland.outline.max(axis=0)
        visible = np.minimum(high, far) - np.maximum(low, 0.0)
        if (visible > 0.0).all():
            covered += 0.75 * float(visible.prod())
            draw_gland(rng, grid, style, gland, epithelium, gap)
    for tissue, kind in ((Tissue.NORMAL, False), (Tissue.TUMOUR, True)):
        regions[epithelium.made_of(kind)] = tissue.code
