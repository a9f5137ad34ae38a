"""What lies between nuclei: how much hematoxylin and eosin each tissue takes up, and its texture.

Amounts are in units of the stain's reference density: 0.35 of eosin is ordinary stroma, 1.0 of
hematoxylin a dark nucleus.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datamodules.tissue_fields import Fibres, FloatMap, Grid, IdMap, edges, scatter, smooth_noise
from datamodules.tissue_kinds import Tissue

Amounts = tuple[FloatMap, FloatMap]
"""Hematoxylin and eosin, each of shape (height, width)."""


@dataclass(frozen=True)
class Ground:
    """What the painters of tissue need to know about a field.

    Attributes:
        grid: the raster.
        fibres: direction of stroma and muscle.
        distance_um: distance of each pixel from the nearest nucleus, 0 within.
        borders: True on the lines halfway between neighbouring nuclei.
        malignancy: 0 to 1.
    """

    grid: Grid
    fibres: Fibres
    distance_um: FloatMap
    borders: FloatMap
    malignancy: float

    @classmethod
    def of(cls, grid: Grid, fibres: Fibres, ids: IdMap, malignancy: float) -> Ground:
        """Measure a field whose nuclei are drawn."""
        free = (ids == 0).astype(np.uint8)
        distance, nearest = cv2.distanceTransformWithLabels(
            free, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_CCOMP
        )
        return cls(
            grid=grid,
            fibres=fibres,
            distance_um=np.asarray(distance * np.float32(grid.mpp), np.float32),
            borders=(edges(nearest) & (ids == 0)).astype(np.float32),
            malignancy=malignancy,
        )


def matter(rng: np.random.Generator, tissue: Tissue, ground: Ground) -> Amounts:
    """Stain that a tissue takes up apart from its nuclei, painted over the whole field."""
    match tissue:
        case Tissue.STROMA:
            return _stroma(rng, ground)
        case Tissue.MUSCLE:
            return _muscle(rng, ground)
        case Tissue.ADIPOSE:
            return _adipose(rng, ground)
        case Tissue.MUCUS:
            return _mucus(rng, ground)
        case Tissue.DEBRIS:
            return _debris(rng, ground)
        case Tissue.LYMPHOID:
            return _lymphoid(rng, ground)
        case Tissue.NORMAL:
            return _cells(rng, ground, 0.12, 0.32)
        case Tissue.TUMOUR:
            return _cells(rng, ground, 0.14 + 0.10 * ground.malignancy, 0.34)
        case Tissue.BACKGROUND:
            return _empty(rng, ground)


def _step(values: FloatMap, low: float, high: float) -> FloatMap:
    """0 below `low`, 1 above `high`, smooth between."""
    part = np.clip((values - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return np.asarray(part * part * (3.0 - 2.0 * part), np.float32)


def _stroma(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Collagen: wavy pink fibres with clefts; loose or dense from field to field."""
    fine = ground.fibres.texture(rng, 22.0, 1.5)
    coarse = ground.fibres.texture(rng, 55.0, 5.0)
    looseness = rng.uniform(-1.3, -0.3)
    solid = _step(coarse + 0.45 * fine, looseness - 0.25, looseness + 0.25)
    amount = np.float32(rng.uniform(0.75, 1.15)) * (0.06 + 0.94 * solid)
    eosin = amount * (0.33 + 0.06 * fine + 0.05 * coarse)
    hematoxylin = amount * (0.05 + 0.03 * np.float32(rng.random()) + 0.02 * fine)
    return hematoxylin, eosin


def _muscle(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Smooth muscle: parallel strong pink bundles with thin white clefts."""
    fine = ground.fibres.texture(rng, 60.0, 1.6)
    bundle = ground.fibres.texture(rng, 140.0, 6.0)
    solid = _step(bundle + 0.25 * fine, -1.25, -1.05)
    eosin = (0.10 + 0.90 * solid) * (0.47 + 0.05 * fine + 0.04 * bundle)
    return (0.02 + 0.98 * solid) * (0.09 + 0.02 * fine), eosin


def _adipose(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Fat: empty polygonal cells of 50 to 90 um between thin septa."""
    raster_um, pad = 2.0, 60.0
    grid = ground.grid
    shape = tuple(int((side * grid.mpp + 2 * pad) / raster_um) + 1 for side in grid.shape)
    wide = Grid(shape[0], shape[1], raster_um)
    free = np.ones(wide.shape, np.uint8)
    free[wide.indices(scatter(rng, wide, rng.uniform(48.0, 72.0), 0.7))] = 0
    _, nearest = cv2.distanceTransformWithLabels(
        free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    septa = edges(nearest)
    away = cv2.distanceTransform((~septa).astype(np.uint8), cv2.DIST_L2, 5) * raster_um
    x = np.arange(grid.width, dtype=np.float32)[None, :] * np.float32(grid.mpp)
    y = np.arange(grid.height, dtype=np.float32)[:, None] * np.float32(grid.mpp)
    bend = 2.5 * smooth_noise(rng, grid, 22.0)
    at_x = (x + np.float32(pad) + bend) / np.float32(raster_um)
    at_y = (y + np.float32(pad) - bend) / np.float32(raster_um)
    away = cv2.remap(away, at_x, at_y, cv2.INTER_LINEAR)
    thick = 1.1 + 0.5 * smooth_noise(rng, grid, 30.0)
    septum = np.exp(-np.square(away / np.clip(thick, 0.5, 3.0))).astype(np.float32)
    fine = smooth_noise(rng, grid, 1.5)
    return septum * 0.08, 0.008 + septum * (0.32 + 0.06 * fine)


def _mucus(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Mucus: pale, bluish, with threads drawn out in one direction."""
    thread = ground.fibres.texture(rng, 30.0, 1.3)
    stream = ground.fibres.texture(rng, 70.0, 9.0)
    depth = np.float32(rng.uniform(0.4, 1.3))
    strands = _step(thread + 0.5 * stream, 0.5, 1.5)
    hematoxylin = depth * (0.09 + 0.04 * stream + 0.13 * strands)
    return np.maximum(hematoxylin, 0.01), 0.03 + 0.03 * stream + 0.05 * strands


def _debris(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Necrosis: granular, pink to dirty purple, with clearings."""
    grain = smooth_noise(rng, ground.grid, 1.3)
    clump = smooth_noise(rng, ground.grid, 5.0)
    field = smooth_noise(rng, ground.grid, 28.0)
    solid = 0.15 + 0.85 * _step(field + 0.5 * clump, -1.2, -0.4)
    eosin = solid * (0.29 + 0.09 * grain + 0.06 * clump)
    hematoxylin = solid * (0.12 + 0.07 * grain + 0.05 * clump + 0.03 * field)
    return np.maximum(hematoxylin, 0.0), np.maximum(eosin, 0.0)


def _lymphoid(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Lymphoid tissue: a scant rim of cytoplasm around each nucleus, little between."""
    rim = np.exp(-ground.distance_um / np.float32(rng.uniform(0.9, 2.2)))
    net = smooth_noise(rng, ground.grid, 4.0)
    return 0.12 * rim + 0.02, 0.04 + 0.22 * rim + 0.03 * net


def _cells(rng: np.random.Generator, ground: Ground, hematoxylin: float, eosin: float) -> Amounts:
    """Epithelial cytoplasm: granular, darker at cell borders."""
    grain = smooth_noise(rng, ground.grid, 1.6)
    cloud = smooth_noise(rng, ground.grid, 14.0)
    body = np.float32(rng.uniform(0.8, 1.15)) * (1.0 + 0.13 * cloud + 0.10 * grain)
    far = np.exp(-np.square(ground.distance_um / np.float32(6.0)))
    line = ground.borders
    return body * hematoxylin * (0.55 + 0.45 * far) + 0.02 * line, body * eosin + 0.07 * line


def _empty(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Glass: nothing but a trace of dirt."""
    trace = np.abs(smooth_noise(rng, ground.grid, 20.0))
    return 0.003 * trace, 0.006 * trace
