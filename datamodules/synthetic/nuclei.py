"""Nuclei of a synthetic field: their kinds, where they lie, and what malignancy does to them.

Benign nuclei measure 6 to 8 µm and resemble each other. Malignant ones reach 9 to 14 µm, differ
in size (anisokaryosis) and outline, and carry more chromatin, coarser, often with a nucleolus.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.synthetic.canvas import Ids, Points
from datamodules.synthetic.plan import LUMEN, Gland, Plan
from datamodules.synthetic.tissues import NucleusType, Tissue

NUCLEUS = np.dtype(
    [
        ("type", np.uint8),  # `NucleusType`
        ("centre", float, 2),  # x, y in µm
        ("axes", float, 2),  # half length and half width in µm
        ("angle", float),  # of the length in radians
        ("folding", float),  # see `Canvas.outlines`
        ("chromatin", float),  # amount of hematoxylin
        ("clumping", float),  # how much chromatin varies within the nucleus
        ("membrane", float),  # extra hematoxylin along the edge
        ("nucleolus", float),  # radius in µm, 0 for none
    ]
)
Nuclei = NDArray[np.void]
"""Nuclei of a field, one row of `NUCLEUS` each."""
_NONE = np.zeros((0, 2))


# Radius in µm, length to width, spread (of size, shape and chromatin), and then as in NUCLEUS
# folding, chromatin, clumping, membrane; last, the share of nuclei with a nucleolus.
_BENIGN = np.array([3.4, 1.15, 0.08, 0.03, 0.53, 0.14, 0.17, 0.1])
_MALIGNANT = np.array([5.85, 1.3, 0.22, 0.105, 0.70, 0.24, 0.25, 0.7])
_LYMPHOCYTE = np.array([2.75, 1.12, 0.12, 0.03, 0.78, 0.16, 0.10, 0.0])
_SPINDLE = np.array([2.95, 4.2, 0.20, 0.05, 0.58, 0.08, 0.10, 0.0])
_DEAD = np.array([1.8, 1.15, 0.26, 0.10, 0.75, 0.04, 0.0, 0.0])
_PLATE = np.array([3.08, 2.6, 0.08, 0.15, 1.60, 0.18, -0.35, 0.0])
_CLUMP = np.array([4.0, 1.2, 0.08, 0.15, 1.60, 0.18, -0.35, 0.0])
_PYKNOTIC = np.array([3.1, 1.2, 0.11, 0.05, 1.25, 0.03, 0.05, 0.0])


def _nuclei(
    rng: np.random.Generator,
    nucleus_type: ArrayLike,
    kind: Points,
    centres: Points,
    angle: Points | None = None,
) -> Nuclei:
    """Nuclei at these centres, of one kind or each of its own, (n, traits)."""
    count = len(centres)
    radius, elongation, spread, *traits, nucleoli = np.broadcast_to(kind, (count, kind.shape[-1])).T
    size, shape, shade = np.exp(rng.normal(0.0, spread, (3, count)))
    length, width = radius * size * np.sqrt([elongation * shape, 1 / (elongation * shape)])
    nuclei = np.zeros(count, NUCLEUS)
    nuclei["type"], nuclei["centre"] = nucleus_type, centres
    nuclei["axes"] = np.stack([length, width], axis=1)
    nuclei["angle"] = rng.uniform(0.0, np.pi, count) if angle is None else angle
    for name, trait in zip(("folding", "chromatin", "clumping", "membrane"), traits, strict=True):
        nuclei[name] = trait
    nuclei["chromatin"] *= shade
    nuclei["nucleolus"] = 0.2 * radius * (rng.random(count) < nucleoli)
    return nuclei


def populate(plan: Plan, mitoses: Points, lookalikes: Points) -> Nuclei:
    """All nuclei that a field may hold, before collisions are sorted out.

    Mitotic figures (a plate seen from its edge, or a ragged clump) come first, then their
    look-alikes: shrunken dead nuclei, very dark, round and smooth.
    """
    rng = plan.canvas.rng
    figures = np.where(rng.random((len(mitoses), 1)) < 0.6, _PLATE, _CLUMP)
    groups = [
        _nuclei(rng, NucleusType.NEOPLASTIC, figures, mitoses),
        _nuclei(rng, NucleusType.DEAD, _PYKNOTIC, lookalikes),
        *(_lining(plan, number) for number in range(1, len(plan.glands) + 1)),
    ]
    if plan.glands:
        groups.append(_sheets(plan))
    return np.concatenate([*groups, *_others(plan)])


def _others(plan: Plan) -> list[Nuclei]:
    """Spindle cells along fibres, lymphocytes, and what is left of cells in necrosis."""
    rng, canvas = plan.canvas.rng, plan.canvas
    spindles = 0.07 * plan.organ.spindles * (1.0 + 0.6 * plan.malignancy)
    strays = 0.07 * plan.organ.lymphocytes * rng.uniform(0.3, 1.7)
    lymphocyte = NucleusType.INFLAMMATORY, _LYMPHOCYTE
    spindle = NucleusType.CONNECTIVE, _SPINDLE
    present, groups = np.bincount(plan.regions.ravel(), minlength=len(Tissue)), []
    for tissue, pitch, share, kind, follows in (
        (Tissue.LYMPHOID, rng.uniform(6.0, 9.0), 1.0, lymphocyte, None),
        (Tissue.MUCUS, 55.0, 1.0, lymphocyte, None),
        (Tissue.DEBRIS, 9.0, 1.0, (NucleusType.DEAD, _DEAD), None),
        (Tissue.STROMA, 9.0, strays, lymphocyte, None),
        (Tissue.STROMA, 9.0, spindles, spindle, plan.fibres[1]),
        (Tissue.MUSCLE, 9.0, 0.13, spindle, plan.fibres[1]),
        (Tissue.ADIPOSE, 5.0, 0.07, spindle, plan.walls_um),
    ):
        points = plan.within(tissue, canvas.scatter(pitch, 0.7) if present[tissue] else _NONE)
        if tissue is Tissue.ADIPOSE:
            points = points[plan.walls_um[canvas.indices(points)] < 1.0]
        if share < 1.0 and len(points):  # in clusters
            clusters = np.exp(0.8 * canvas.noise(45.0)[canvas.indices(points)]) / 1.38
            points = points[rng.random(len(points)) < share * clusters]
        angle = None
        if follows is not None and len(points):
            x, y = (cv2.Sobel(follows, cv2.CV_32F, *way) for way in ((1, 0), (0, 1)))
            where = canvas.indices(points)
            angle = np.arctan2(-x[where], y[where]) + rng.normal(0.0, 0.14, len(points))
        groups.append(_nuclei(rng, *kind, points, angle))
    return groups


def _epithelial(plan: Plan, glands: list[Gland], centres: Points, angle: Points) -> Nuclei:
    """Nuclei of glands and nests, each with the gland that it belongs to."""
    grade = np.array([gland.malignancy for gland in glands])[:, None]
    types = [NucleusType.NEOPLASTIC if gland.tumour else NucleusType.EPITHELIAL for gland in glands]
    turned = angle + plan.canvas.rng.normal(0.0, 0.12 + 0.8 * grade[:, 0] ** 2)
    kinds = _BENIGN + grade * (_MALIGNANT - _BENIGN)
    kinds[:, 1] += (1.0 - grade[:, 0]) * (plan.organ.columnar - _BENIGN[1])
    return _nuclei(plan.canvas.rng, types, kinds, centres, turned)


def _lining(plan: Plan, number: int) -> Nuclei:
    """Rows of nuclei below the outline of a gland with one lumen; more rows when malignant."""
    rng, gland = plan.canvas.rng, plan.glands[number - 1]
    if gland.growth != "lined":
        return np.zeros(0, NUCLEUS)
    radius = _BENIGN[0] + gland.malignancy * (_MALIGNANT[0] - _BENIGN[0])
    stretch = plan.organ.columnar**0.5
    rows = min(1.8 + 1.8 * gland.malignancy, gland.height_um / radius / 1.6 - 0.5)
    depths, corners = [], []
    for row in range(max(1, round(rows))):
        depth = radius * stretch * (1.0 + 1.75 * row) + 1.2
        count = max(3, int(2.8 * stretch * (gland.radius.mean() - 0.5 * depth) / radius))
        turn = np.arange(count) + rng.uniform(-0.2, 0.2, count)
        corners.append((turn * len(gland.outline) / count).astype(np.intp))
        depths.append(rng.normal(depth, 0.5 + 1.4 * gland.malignancy, count))
    corner = np.concatenate(corners)
    centres = gland.below(corner, np.concatenate(depths))
    where = plan.canvas.indices(centres)
    inside = (plan.ids[where] == number) & (plan.holes[where] != LUMEN)
    glands = [gland] * int(inside.sum())
    return _epithelial(plan, glands, centres[inside], gland.angle(corner)[inside])


def _sheets(plan: Plan) -> Nuclei:
    """Nuclei that fill solid and cribriform epithelium."""
    rng, worst = plan.canvas.rng, max(gland.malignancy for gland in plan.glands)
    points = plan.canvas.scatter((3.7 + 2.1 * worst) * (rng.uniform(2.9, 3.3) - 0.5 * worst), 0.75)
    where = plan.canvas.indices(points)
    filled = np.array([False, *(gland.growth != "lined" for gland in plan.glands)])
    inside = filled[plan.ids[where]] & (plan.holes[where] == 0)
    glands = [plan.glands[number - 1] for number in plan.ids[where][inside]]
    return _epithelial(plan, glands, points[inside], rng.uniform(0.0, np.pi, len(glands)))


def draw_nuclei(plan: Plan, nuclei: Nuclei, foremost: int) -> Ids:
    """Draw nuclei in their order, leaving out those that would cover an earlier one.

    The `foremost` first (mitoses) are drawn in full, over what crept onto their edge.

    Returns:
        The row of the nucleus, counted from 1, of every pixel; neighbours may touch.
    """
    canvas, ids = plan.canvas, np.zeros(plan.canvas.shape, np.int32)
    outlines = canvas.outlines(nuclei["centre"], nuclei["axes"], nuclei["angle"], nuclei["folding"])
    probes = np.concatenate([nuclei["centre"][:, None], outlines[:, ::4]], axis=1)
    rows, columns = canvas.indices(probes.reshape(-1, 2))
    spots = (rows * canvas.width + columns).reshape(len(nuclei), 5)
    taken = ids.reshape(-1)
    for row, spot in enumerate(spots):
        if not taken[spot].any():
            canvas.fill(ids, outlines[row : row + 1], row + 1)
    for row in range(foremost):
        canvas.fill(ids, outlines[row : row + 1], row + 1)
    return ids
