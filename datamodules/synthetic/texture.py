"""What lies between nuclei: how much hematoxylin and eosin each tissue takes up, and its texture.

Amounts are in units of the stain's reference density: 0.35 of eosin is ordinary stroma, 1.0 of
hematoxylin a dark nucleus.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datamodules.synthetic.fibres import Terrain
from datamodules.synthetic.noise import FloatMap, Grid, IdMap, edges, smooth_noise
from datamodules.synthetic.tissues import Tissue

Amounts = tuple[FloatMap, FloatMap]
"""Hematoxylin and eosin, each of shape (height, width)."""


@dataclass(frozen=True)
class Ground:
    """What the painters of tissue need to know about a field.

    Attributes:
        grid: the raster.
        terrain: fibres and fat.
        distance_um: distance of each pixel from the nearest nucleus, 0 within.
        borders: True on the lines halfway between neighbouring nuclei.
        malignancy: 0 to 1.
    """

    grid: Grid
    terrain: Terrain
    distance_um: FloatMap
    borders: FloatMap
    malignancy: float

    @classmethod
    def of(cls, grid: Grid, terrain: Terrain, ids: IdMap, malignancy: float) -> Ground:
        """Measure a field whose nuclei are drawn."""
        free = (ids == 0).astype(np.uint8)
        distance, nearest = cv2.distanceTransformWithLabels(
            free, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_CCOMP
        )
        return cls(
            grid=grid,
            terrain=terrain,
            distance_um=np.asarray(distance * np.float32(grid.mpp), np.float32),
            borders=(edges(np.asarray(nearest, np.int32)) & (ids == 0)).astype(np.float32),
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
    fibres = ground.terrain.fibres
    thread = fibres.texture(rng, 9.0, 0.9)
    fine = fibres.texture(rng, 24.0, 2.2)
    coarse = fibres.texture(rng, 60.0, 7.0)
    looseness = rng.uniform(-1.5, -0.55)
    solid = _step(0.8 * coarse + 0.7 * fine + 0.3 * thread, looseness - 0.3, looseness + 0.3)
    amount = np.float32(rng.uniform(0.75, 1.15)) * (0.05 + 0.95 * solid)
    eosin = amount * (0.32 + 0.06 * thread + 0.06 * fine + 0.04 * coarse)
    tint = np.float32(rng.uniform(0.04, 0.10))
    return np.maximum(amount * (tint + 0.025 * thread), 0.0), np.maximum(eosin, 0.0)


def _muscle(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Smooth muscle: parallel strong pink bundles with thin white clefts."""
    fibres = ground.terrain.fibres
    thread = fibres.texture(rng, 16.0, 1.0)
    bundle = fibres.texture(rng, 110.0, 6.5)
    solid = _step(bundle + 0.3 * fibres.texture(rng, 28.0, 2.5) + 0.2 * thread, -1.35, -1.0)
    eosin = (0.08 + 0.92 * solid) * (0.40 + 0.05 * thread + 0.05 * bundle)
    return (0.02 + 0.98 * solid) * (0.10 + 0.025 * thread), eosin


def _adipose(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Fat: empty cells between thin pink septa, thicker here and there."""
    away = ground.terrain.fat_um
    thick = 0.7 + 0.6 * smooth_noise(rng, ground.grid, 35.0)
    septum = np.exp(-np.square(away / np.clip(thick, 0.45, 2.5))).astype(np.float32)
    film = np.maximum(smooth_noise(rng, ground.grid, 60.0) - 1.0, 0.0)
    fine = smooth_noise(rng, ground.grid, 2.0)
    eosin = 0.008 + septum * (0.30 + 0.04 * fine) + 0.03 * film
    return septum * (0.09 + 0.03 * fine), eosin


def _mucus(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Mucus: pale, bluish, with threads drawn out in one direction."""
    fibres = ground.terrain.fibres
    thread = fibres.texture(rng, 18.0, 1.1)
    stream = fibres.texture(rng, 60.0, 9.0)
    cloud = smooth_noise(rng, ground.grid, 25.0)
    depth = np.float32(rng.uniform(0.3, 1.3)) * (1.0 + 0.3 * cloud)
    strands = _step(thread + 0.6 * stream + 0.3 * cloud, 0.5, 1.5)
    hematoxylin = depth * (0.10 + 0.04 * stream + 0.15 * strands)
    eosin = depth * (0.035 + 0.02 * stream + 0.06 * strands)
    return np.maximum(hematoxylin, 0.008), np.maximum(eosin, 0.008)


def _debris(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Necrosis: granular, pink to dirty purple, with clearings."""
    grain = smooth_noise(rng, ground.grid, 1.3)
    clump = smooth_noise(rng, ground.grid, 5.0)
    field = smooth_noise(rng, ground.grid, 28.0)
    solid = 0.15 + 0.85 * _step(field + 0.5 * clump, -1.2, -0.4)
    eosin = solid * (0.29 + 0.06 * grain + 0.05 * clump)
    hematoxylin = solid * (0.11 + 0.05 * grain + 0.05 * clump + 0.04 * field)
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
    near = np.exp(-np.square(ground.distance_um / np.float32(6.0)))
    blue = body * np.float32(hematoxylin) * (0.55 + 0.45 * near) + 0.02 * ground.borders
    return blue.astype(np.float32), (body * eosin + 0.07 * ground.borders).astype(np.float32)


def _empty(rng: np.random.Generator, ground: Ground) -> Amounts:
    """Glass: nothing but a trace of dirt."""
    trace = (1.5 + smooth_noise(rng, ground.grid, 40.0)) * np.float32(0.003)
    return trace, 2 * trace
