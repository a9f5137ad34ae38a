"""How many mitoses and look-alikes a synthetic field holds, and where they lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import ConfigError
from datamodules.synthetic.noise import FloatPoints, Grid
from datamodules.synthetic.tissues import Tissue

ROOM_UM = 14.0
"""Side of the square that each mitosis or look-alike needs for itself."""

_CANDIDATES = 24
_FAR_UM = 40.0


def mitosis_counts(
    rng: np.random.Generator,
    grid: Grid,
    regions: NDArray[np.uint8],
    malignancy: float,
    mitoses: int | None,
    lookalikes: int | None,
) -> tuple[int, int]:
    """Numbers of mitoses and look-alikes, where not given by the tumour's area and grade."""
    tumour_mm2 = grid.area_um2 / 1e6 * float((regions == Tissue.TUMOUR.code).mean())
    room = int(grid.area_um2 / ROOM_UM**2)
    free = min(room // 4, int(rng.poisson(60.0 * malignancy**2 * tumour_mm2)))
    mimics = min(room // 4, int(rng.poisson((10.0 + 50.0 * malignancy) * tumour_mm2)))
    counts = free if mitoses is None else mitoses, mimics if lookalikes is None else lookalikes
    if min(counts) < 0 or sum(counts) > max(room, 1):
        raise ConfigError(
            f"Synthetic tissue: a field of {grid.width * grid.mpp:.0f} x "
            f"{grid.height * grid.mpp:.0f} um has room for {room} mitoses and look-alikes, "
            f"not for {counts[0]} and {counts[1]}; ask for fewer or for a larger field."
        )
    return counts


def place_mitoses(
    rng: np.random.Generator,
    grid: Grid,
    regions: NDArray[np.uint8],
    holes: NDArray[np.uint8],
    mitoses: int,
    lookalikes: int,
) -> tuple[FloatPoints, FloatPoints]:
    """Positions x, y in um, far from each other, in solid tumour where there is some.

    Each is the best of some random candidates by tissue and by distance from its predecessors
    (best-candidate sampling: Mitchell, SIGGRAPH 1991).

    Args:
        rng: source of randomness.
        grid: the field.
        regions: index of `Tissue` per pixel.
        holes: 255 within lumina.
        mitoses: how many mitotic figures.
        lookalikes: how many dark bodies besides.

    Returns:
        Positions of the mitoses and of the look-alikes, (n, 2) each.
    """
    chosen = np.zeros((0, 2))
    size = np.array([grid.width, grid.height]) * grid.mpp
    margin = np.minimum(6.0, size / 4)
    fit = np.ones(len(Tissue))
    fit[Tissue.TUMOUR.code] = 8.0
    fit[[Tissue.ADIPOSE.code, Tissue.BACKGROUND.code, Tissue.MUCUS.code]] = 0.1
    for _ in range(mitoses + lookalikes):
        tries = rng.uniform(margin, size - margin, (_CANDIDATES, 2))
        where = grid.indices(tries)
        gap = np.full(_CANDIDATES, _FAR_UM)
        if len(chosen):
            gap = np.linalg.norm(tries[:, None] - chosen[None], axis=-1).min(axis=1)
        score = np.minimum(gap, _FAR_UM) * fit[regions[where]]
        score[holes[where] > 0] *= 0.05
        score[gap < 0.8 * ROOM_UM] *= 1e-3
        chosen = np.vstack([chosen, tries[np.argmax(score)]])
    return chosen[:mitoses], chosen[mitoses:]
