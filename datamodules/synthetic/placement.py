"""Where nuclei sit: rows in glands, sheets in nests, along fibres, packed in lymphoid tissue."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic import nuclei
from datamodules.synthetic.fibres import Terrain, slope_along
from datamodules.synthetic.glands import Epithelium, Gland, Growth
from datamodules.synthetic.noise import FloatPoints, Grid, IdMap, scatter, smooth_noise
from datamodules.synthetic.nuclei import Nuclei
from datamodules.synthetic.shapes import SHIFT, blobs, fixed, placed
from datamodules.synthetic.tissues import OrganStyle, Tissue

_CORNERS = 16


def populate(
    rng: np.random.Generator,
    grid: Grid,
    style: OrganStyle,
    regions: NDArray[np.uint8],
    epithelium: Epithelium,
    terrain: Terrain,
    malignancy: float,
) -> list[Nuclei]:
    """All nuclei that a field may hold, group by group, before collisions are sorted out."""
    present = {tissue for i, tissue in enumerate(Tissue) if (regions == i).any()}
    groups: list[Nuclei] = []
    if epithelium.members:
        groups += _lining(rng, grid, style, epithelium)
        groups += _sheets(rng, grid, style, epithelium)
    if Tissue.LYMPHOID in present:
        loose = rng.uniform(1.0, 1.5)
        points = _within(scatter(rng, grid, 6.0 * loose, 0.55), grid, regions, Tissue.LYMPHOID)
        groups.append(nuclei.lymphoid(rng, points))
    if Tissue.DEBRIS in present:
        points = _within(scatter(rng, grid, 9.0, 1.0), grid, regions, Tissue.DEBRIS)
        groups.append(nuclei.dead(rng, points))
    if Tissue.MUCUS in present:
        points = _within(scatter(rng, grid, 55.0, 1.0), grid, regions, Tissue.MUCUS)
        groups.append(nuclei.lymphoid(rng, points))
    groups += _connective(rng, grid, style, regions, terrain, malignancy)
    return groups


def _within(
    points: FloatPoints, grid: Grid, regions: NDArray[np.uint8], tissue: Tissue
) -> FloatPoints:
    """The points that lie in a tissue; beyond the border the nearest pixel decides."""
    return np.asarray(points[regions[grid.indices(points)] == tissue.code])


def _thinned(
    rng: np.random.Generator, points: FloatPoints, grid: Grid, per_1000_um2: float
) -> FloatPoints:
    """A random part of a lattice's points with this density on average, in clusters."""
    clusters = np.exp(0.8 * smooth_noise(rng, grid, 45.0)[grid.indices(points)])
    area = (grid.height * grid.mpp + 20.0) * (grid.width * grid.mpp + 20.0)
    chance = per_1000_um2 * area / 1000.0 / max(len(points), 1) * clusters / 1.38
    return np.asarray(points[rng.random(len(points)) < chance])


def _connective(
    rng: np.random.Generator,
    grid: Grid,
    style: OrganStyle,
    regions: NDArray[np.uint8],
    terrain: Terrain,
    malignancy: float,
) -> list[Nuclei]:
    """Spindle cells along fibres, and lymphocytes that strayed among them."""
    groups = []
    desmoplastic = 1.0 + 0.6 * malignancy
    lattice = scatter(rng, grid, 9.0, 1.0)
    for tissue, density, plump in (
        (Tissue.STROMA, style.spindles * desmoplastic, rng.uniform(0.9, 1.5)),
        (Tissue.MUSCLE, 1.8, 1.35),
    ):
        points = _within(lattice, grid, regions, tissue)
        if len(points):
            points = _thinned(rng, points, grid, density)
            angle = terrain.fibres.direction(*grid.indices(points))
            groups.append(nuclei.spindle(rng, points, angle, plump))
    fat = _within(scatter(rng, grid, 5.0, 1.0), grid, regions, Tissue.ADIPOSE)
    fat = fat[terrain.fat_um[grid.indices(fat)] < 0.8]
    fat = fat[rng.random(len(fat)) < 0.07]
    if len(fat):
        angle = slope_along(terrain.fat_um, *grid.indices(fat))
        groups.append(nuclei.spindle(rng, fat, angle, 1.0))
    stray = _within(scatter(rng, grid, 9.0, 1.0), grid, regions, Tissue.STROMA)
    if len(stray):
        density = style.lymphocytes * rng.uniform(0.3, 1.7)
        groups.append(nuclei.lymphoid(rng, _thinned(rng, stray, grid, density)))
    return groups


def _lining(
    rng: np.random.Generator, grid: Grid, style: OrganStyle, epithelium: Epithelium
) -> list[Nuclei]:
    """Rows of nuclei above the basement membrane of every gland with one lumen."""
    groups = []
    for number, gland in enumerate(epithelium.members, start=1):
        if gland.growth is Growth.LINED:
            centres, angle = _rows(rng, style, gland)
            inside = epithelium.ids[grid.indices(centres)] == number
            inside &= epithelium.holes[grid.indices(centres)] == 0
            centres, angle = centres[inside], angle[inside]
            tumour = np.full(len(centres), gland.tumour)
            change = np.full(len(centres), gland.malignancy)
            groups.append(nuclei.epithelial(rng, style, centres, angle, tumour, change))
    return groups


def _rows(
    rng: np.random.Generator, style: OrganStyle, gland: Gland
) -> tuple[FloatPoints, FloatPoints]:
    """Positions x, y in um and radial angles of a lining's nuclei; more rows when malignant."""
    radius = style.nucleus_um + 2.1 * gland.malignancy + 0.35 * gland.tumour
    stretch = np.sqrt(style.columnar)
    closed = np.vstack([gland.outline, gland.outline[:1]])
    step = np.hypot(*np.diff(closed, axis=0).T)
    length = np.concatenate([[0.0], np.cumsum(step)])
    rows = style.rows + round(1.8 * gland.malignancy)
    basal = radius * stretch + 1.2
    rows = max(1, min(rows, int((gland.height_um - basal) / (1.5 * radius)) + 1))
    centres, angles = [], []
    for row in range(rows):
        inset = basal + row * 1.75 * radius * stretch
        count = max(3, int(length[-1] * (1 - row * 0.08) / (2.25 * radius / stretch)))
        at = (np.arange(count) + rng.uniform(-0.2, 0.2, count)) * length[-1] / count % length[-1]
        x, y = np.interp(at, length, closed[:, 0]), np.interp(at, length, closed[:, 1])
        ahead = (at + 2.0) % length[-1]
        along = np.arctan2(
            np.interp(ahead, length, closed[:, 1]) - y, np.interp(ahead, length, closed[:, 0]) - x
        )
        inward = along + np.pi / 2
        depth = inset + rng.normal(0.0, 0.5 + 1.4 * gland.malignancy, count)
        centres.append(np.stack([x + depth * np.cos(inward), y + depth * np.sin(inward)], axis=1))
        angles.append(inward)
    return np.concatenate(centres), np.concatenate(angles)


def _sheets(
    rng: np.random.Generator, grid: Grid, style: OrganStyle, epithelium: Epithelium
) -> list[Nuclei]:
    """Nuclei that fill solid and cribriform epithelium."""
    filled = [gland.growth is not Growth.LINED for gland in epithelium.members]
    if not any(filled):
        return []
    change = np.array([0.0, *(gland.malignancy for gland in epithelium.members)])
    radius = style.nucleus_um + 0.35 + 2.1 * float(change.max())
    crowding = rng.uniform(2.9, 3.3) - 0.5 * float(change.max())
    points = scatter(rng, grid, radius * crowding, 0.75)
    where = grid.indices(points)
    gland = epithelium.ids[where]
    inside = np.array([False, *filled])[gland] & (epithelium.holes[where] == 0)
    points, gland = points[inside], gland[inside]
    angle = rng.uniform(0.0, np.pi, len(points))
    tumour = np.array([False, *(member.tumour for member in epithelium.members)])
    return [nuclei.epithelial(rng, style, points, angle, tumour[gland], change[gland])]


def draw_nuclei(
    rng: np.random.Generator, grid: Grid, groups: list[Nuclei], foremost: int
) -> tuple[IdMap, Nuclei]:
    """Draw nuclei in the order given, leaving out those that would cover an earlier one.

    The `foremost` first rows (mitoses) are drawn in full, over what crept onto their edge.

    Returns:
        Map of instances from 1 (an instance may touch its neighbours), and the nuclei, whose
        row `i` is instance `i + 1`; a nucleus that found no room has no pixels.
    """
    ids = np.zeros(grid.shape, np.int32)
    cells = Nuclei.joined(groups)
    if not len(cells):
        return ids, cells
    shapes = placed(
        blobs(rng, cells.folding, _CORNERS),
        cells.centres,
        cells.half_length,
        cells.half_width,
        cells.angle,
    )
    probes = np.concatenate([cells.centres[:, None], shapes[:, :: _CORNERS // 4]], axis=1)
    rows, columns = grid.indices(probes.reshape(-1, 2))
    spots = (rows * grid.width + columns).reshape(len(cells), -1)
    taken = ids.reshape(-1)
    corners = fixed(shapes, grid)
    for number, (shape, spot) in enumerate(zip(corners, spots, strict=True), start=1):
        if not taken[spot].any():
            cv2.fillPoly(ids, [shape], number, cv2.LINE_8, SHIFT)
    for number, shape in enumerate(corners[:foremost], start=1):
        cv2.fillPoly(ids, [shape], number, cv2.LINE_8, SHIFT)
    return ids, cells
