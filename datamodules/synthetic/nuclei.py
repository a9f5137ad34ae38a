"""Kinds of nuclei: size, shape and chromatin, and what malignancy does to them.

Benign nuclei measure 6 to 8 um and resemble each other. Malignant ones reach 9 to 14 um, differ
in size (anisokaryosis) and outline, and carry more chromatin, coarser, often with a nucleolus.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.noise import FloatPoints
from datamodules.synthetic.tissues import NucleusType, OrganStyle


@dataclass(frozen=True)
class Nuclei:
    """Nuclei of a field, one row each.

    Attributes:
        centres: x, y in um, shape (n, 2).
        half_length, half_width: half axes in um.
        angle: direction of the long axis in radians.
        folding: waviness of the outline (see `blobs`).
        kinds: `NucleusType`.
        chromatin: amount of hematoxylin.
        clumping: how much chromatin varies within the nucleus.
        membrane: extra hematoxylin along the edge.
        nucleolus: radius in um, 0 for none.
    """

    centres: FloatPoints
    half_length: FloatPoints
    half_width: FloatPoints
    angle: FloatPoints
    folding: FloatPoints
    kinds: NDArray[np.uint8]
    chromatin: FloatPoints
    clumping: FloatPoints
    membrane: FloatPoints
    nucleolus: FloatPoints

    def __len__(self) -> int:
        return len(self.kinds)

    def take(self, rows: NDArray[np.intp]) -> Nuclei:
        """These rows, in this order."""
        return Nuclei(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def joined(cls, groups: list[Nuclei]) -> Nuclei:
        """All rows of several groups."""
        return cls(
            **{f.name: np.concatenate([getattr(g, f.name) for g in groups]) for f in fields(cls)}
        )


def epithelial(
    rng: np.random.Generator,
    style: OrganStyle,
    centres: FloatPoints,
    angle: FloatPoints,
    tumour: NDArray[np.bool_],
    malignancy: FloatPoints,
) -> Nuclei:
    """Nuclei of glands and nests; `tumour` and `malignancy` have one value per nucleus."""
    count = len(centres)
    change = np.where(tumour, malignancy, 0.0)
    radius = style.nucleus_um + np.where(tumour, 0.35, 0.0) + 2.1 * change
    radius = radius * _vary(rng, count, 0.06 + 0.16 * change)
    columnar = style.columnar + (1.30 - style.columnar) * change**2
    stretch = np.sqrt(columnar * _vary(rng, count, 0.08 + 0.10 * change))
    pale = rng.random(count) < 0.15 + 0.35 * change * rng.random()
    chromatin = (0.55 + 0.22 * change) * _vary(rng, count, 0.10 + 0.16 * change)
    return Nuclei(
        centres=centres,
        half_length=radius * stretch,
        half_width=radius / stretch,
        angle=angle + rng.normal(0.0, 0.12 + 0.8 * change**2),
        folding=0.03 + 0.075 * change,
        kinds=np.where(tumour, NucleusType.NEOPLASTIC, NucleusType.EPITHELIAL).astype(np.uint8),
        chromatin=np.where(pale, 0.66 * chromatin, chromatin),
        clumping=0.13 + 0.10 * change + 0.05 * pale,
        membrane=0.15 + 0.15 * pale + 0.05 * change,
        nucleolus=np.where(rng.random(count) < 0.10 + 0.6 * change, 0.55 + 0.75 * change, 0.0),
    )


def lymphoid(rng: np.random.Generator, centres: FloatPoints) -> Nuclei:
    """Lymphocytes and plasma cells: small, round, dark."""
    count = len(centres)
    radius = 2.75 * _vary(rng, count, 0.10)
    return Nuclei(
        centres=centres,
        half_length=radius * 1.06,
        half_width=radius / 1.06,
        angle=rng.uniform(0.0, np.pi, count),
        folding=np.full(count, 0.03),
        kinds=np.full(count, NucleusType.INFLAMMATORY, np.uint8),
        chromatin=0.78 * _vary(rng, count, 0.14),
        clumping=np.full(count, 0.16),
        membrane=np.full(count, 0.10),
        nucleolus=np.zeros(count),
    )


def spindle(
    rng: np.random.Generator, centres: FloatPoints, angle: FloatPoints, plump: float
) -> Nuclei:
    """Fibroblasts and muscle cells along their fibres; `plump` 1 is thin, 2 twice as wide."""
    count = len(centres)
    return Nuclei(
        centres=centres,
        half_length=6.0 * _vary(rng, count, 0.22),
        half_width=1.25 * plump * _vary(rng, count, 0.22),
        angle=angle + rng.normal(0.0, 0.14, count),
        folding=np.full(count, 0.05),
        kinds=np.full(count, NucleusType.CONNECTIVE, np.uint8),
        chromatin=0.58 * _vary(rng, count, 0.20),
        clumping=np.full(count, 0.08),
        membrane=np.full(count, 0.10),
        nucleolus=np.zeros(count),
    )


def dead(rng: np.random.Generator, centres: FloatPoints) -> Nuclei:
    """Pyknotic nuclei and fragments in necrosis: small, smudged, of any darkness."""
    count = len(centres)
    radius = rng.uniform(1.1, 2.7, count)
    return Nuclei(
        centres=centres,
        half_length=radius * rng.uniform(1.0, 1.3, count),
        half_width=radius,
        angle=rng.uniform(0.0, np.pi, count),
        folding=np.full(count, 0.10),
        kinds=np.full(count, NucleusType.DEAD, np.uint8),
        chromatin=rng.uniform(0.45, 1.10, count),
        clumping=np.full(count, 0.04),
        membrane=np.zeros(count),
        nucleolus=np.zeros(count),
    )


def mitotic(rng: np.random.Generator, centres: FloatPoints) -> Nuclei:
    """Mitotic figures: a plate seen from its edge, or a ragged clump; no membrane."""
    count = len(centres)
    plate = rng.random(count) < 0.6
    length = np.where(plate, rng.uniform(4.2, 5.8, count), rng.uniform(3.9, 4.9, count))
    width = np.where(plate, rng.uniform(1.6, 2.2, count), length * rng.uniform(0.72, 0.95, count))
    return Nuclei(
        centres=centres,
        half_length=length,
        half_width=width,
        angle=rng.uniform(0.0, np.pi, count),
        folding=np.full(count, 0.15),
        kinds=np.full(count, NucleusType.NEOPLASTIC, np.uint8),
        chromatin=1.60 * _vary(rng, count, 0.08),
        clumping=np.full(count, 0.18),
        membrane=np.full(count, -0.35),
        nucleolus=np.zeros(count),
    )


def pyknotic(rng: np.random.Generator, centres: FloatPoints) -> Nuclei:
    """What is mistaken for a mitosis: a shrunken nucleus, very dark, round and smooth."""
    count = len(centres)
    radius = rng.uniform(2.3, 3.6, count)
    return Nuclei(
        centres=centres,
        half_length=radius * rng.uniform(1.0, 1.45, count),
        half_width=radius,
        angle=rng.uniform(0.0, np.pi, count),
        folding=rng.uniform(0.01, 0.09, count),
        kinds=np.full(count, NucleusType.DEAD, np.uint8),
        chromatin=1.25 * _vary(rng, count, 0.10),
        clumping=np.full(count, 0.03),
        membrane=np.full(count, 0.05),
        nucleolus=np.zeros(count),
    )


def _vary(rng: np.random.Generator, count: int, spread: float | FloatPoints) -> FloatPoints:
    """Log-normal factors around 1."""
    return np.exp(rng.standard_normal(count) * spread)
