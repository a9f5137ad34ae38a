"""Nuclei of a synthetic field: their kinds, where they lie, and what malignancy does to them.

Benign nuclei measure 6 to 8 µm and resemble each other. Malignant ones reach 9 to 14 µm, differ
in size (anisokaryosis) and outline, and carry more chromatin, coarser, often with a nucleolus.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.synthetic.canvas import Ids, Points, fill_polygon
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
Nuclei = NDArray[np.void]  # one row of `NUCLEUS` each

# Radius in µm, length to width, spread (of size, shape and chromatin), and then as in NUCLEUS
# folding, chromatin, clumping, membrane; last, the share of nuclei with a nucleolus.
_BENIGN = np.array([3.4, 1.15, 0.08, 0.03, 0.53, 0.14, 0.17, 0.1])
_MALIGNANT = np.array([5.85, 1.3, 0.22, 0.105, 0.70, 0.24, 0.25, 0.7])
_LYMPHOCYTE = np.array([2.75, 1.12, 0.12, 0.03, 0.78, 0.16, 0.10, 0.0])
_SPINDLE = np.array([2.95, 4.2, 0.20, 0.05, 0.58, 0.08, 0.10, 0.0])
_DEAD = np.array([1.8, 1.15, 0.26, 0.10, 0.75, 0.04, 0.0, 0.0])
_PLATE = np.array([3.08, 2.6, 0.08, 0.15, 1.60, 0.18, -0.35, 0.0])
_CLUMP = np.array([4.0, 1.2, 0.08, 0.15, 1.60, 0.18, -0.35, 0.0])
_PYKNOTIC = np.array([3.1, 1.2, 0.09, 0.05, 1.38, 0.03, 0.05, 0.0])


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
        *([_epithelial(plan)] if plan.glands else []),
        *_others(plan),
    ]
    return np.concatenate(groups)


def _others(plan: Plan) -> list[Nuclei]:
    """Spindle cells along fibres, lymphocytes, and what is left of cells in necrosis."""
    rng, canvas = plan.canvas.rng, plan.canvas
    spindles = 0.07 * plan.organ.spindles * (1.0 + 0.6 * plan.malignancy)
    strays = 0.07 * plan.organ.lymphocytes * rng.uniform(0.3, 1.7)
    lymphocyte = NucleusType.INFLAMMATORY, _LYMPHOCYTE
    spindle = NucleusType.CONNECTIVE, _SPINDLE
    present = np.bincount(plan.regions.ravel(), minlength=len(Tissue))
    groups, clusters = [], canvas.noise(45.0)
    for tissue, pitch, share, kind, follows in (
        (Tissue.LYMPHOID, rng.uniform(6.0, 9.0), 1.0, lymphocyte, None),
        (Tissue.MUCUS, 55.0, 1.0, lymphocyte, None),
        (Tissue.DEBRIS, 9.0, 1.0, (NucleusType.DEAD, _DEAD), None),
        (Tissue.STROMA, 9.0, strays, lymphocyte, None),
        (Tissue.STROMA, 9.0, spindles, spindle, plan.fibres[1]),
        (Tissue.MUSCLE, 9.0, 0.13, spindle, plan.fibres[1]),
        (Tissue.ADIPOSE, 5.0, 0.07, spindle, plan.walls_um),
    ):
        if not present[tissue]:
            continue
        points = plan.within(tissue, canvas.scatter(pitch, 0.7))
        if tissue is Tissue.ADIPOSE:
            points = points[plan.walls_um[canvas.indices(points)] < 1.0]
        if share < 1.0:
            chance = share * np.exp(0.8 * clusters[canvas.indices(points)]) / 1.38
            points = points[rng.random(len(points)) < chance]
        angle = None
        if follows is not None:
            x, y = (cv2.Sobel(follows, cv2.CV_32F, *way) for way in ((1, 0), (0, 1)))
            where = canvas.indices(points)
            angle = np.arctan2(-x[where], y[where]) + rng.normal(0.0, 0.14, len(points))
        groups.append(_nuclei(rng, *kind, points, angle))
    return groups


def _epithelial(plan: Plan) -> Nuclei:
    """Nuclei of glands and nests: rows in lined glands, sheets in solid and cribriform ones."""
    rng, grade = plan.canvas.rng, plan.malignancy * max(gland.tumour for gland in plan.glands)
    sheet = plan.canvas.scatter((3.7 + 2.1 * grade) * (rng.uniform(2.9, 3.3) - 0.5 * grade), 0.75)
    filled = np.array([False, *(gland.growth != "lined" for gland in plan.glands)])
    ids = plan.ids[plan.canvas.indices(sheet)]
    groups = [(sheet, rng.uniform(0.0, np.pi, len(sheet)), ids * filled[ids])]
    for number, gland in enumerate(plan.glands, start=1):
        if gland.growth == "lined":
            centres, angles = _rows(plan, gland)
            groups.append((centres, angles, np.full(len(centres), number)))
    points, angle, owner = (np.concatenate(parts) for parts in zip(*groups, strict=True))
    where = plan.canvas.indices(points)
    kept = (owner > 0) & (plan.ids[where] == owner) & (plan.holes[where] != LUMEN)
    tumour = np.array([False, *(gland.tumour for gland in plan.glands)])[owner[kept], None]
    change = plan.malignancy * tumour
    kinds = _BENIGN + change * (_MALIGNANT - _BENIGN)
    kinds[:, 1:2] += (1.0 - change) * (plan.organ.columnar - _BENIGN[1])
    types = np.where(tumour[:, 0], NucleusType.NEOPLASTIC, NucleusType.EPITHELIAL)
    turned = angle[kept] + rng.normal(0.0, 0.12 + 0.8 * change[:, 0] ** 2)
    return _nuclei(rng, types, kinds, points[kept], turned)


def _rows(plan: Plan, gland: Gland) -> tuple[Points, Points]:
    """Centres and angles of rows of nuclei below an outline; more rows when malignant."""
    rng, grade = plan.canvas.rng, plan.malignancy * gland.tumour
    radius = _BENIGN[0] + grade * (_MALIGNANT[0] - _BENIGN[0])
    stretch = plan.organ.columnar**0.5
    rows = max(1, round(min(1.8 + 1.8 * grade, gland.height_um / radius / 1.6 - 0.5)))
    depths, corners = [], []
    for depth in radius * stretch * (1.0 + 1.75 * np.arange(rows)) + 1.2:
        count = max(3, int(2.8 * stretch * (gland.radius.mean() - 0.5 * depth) / radius))
        turn = np.arange(count) + rng.uniform(-0.2, 0.2, count)
        corners.append((turn * len(gland.outline) / count).astype(np.intp))
        depths.append(rng.normal(depth, 0.5 + 1.4 * grade, count))
    corner = np.concatenate(corners)
    return gland.below(corner, np.concatenate(depths)), gland.angle[corner]


def draw_nuclei(plan: Plan, nuclei: Nuclei, foremost: int) -> Ids:
    """Row, counted from 1, of the nucleus of every pixel; neighbours may touch.

    Nuclei that would cover an earlier one are left out; the `foremost` first (mitoses) are drawn
    in full, over what lies on their edge.
    """
    canvas, ids = plan.canvas, np.zeros(plan.canvas.shape, np.int32)
    outlines = canvas.outlines(nuclei["centre"], nuclei["axes"], nuclei["angle"], nuclei["folding"])
    probes = np.concatenate([nuclei["centre"][:, None], outlines[:, ::4]], axis=1)
    rows, columns = canvas.indices(probes.reshape(-1, 2))
    spots = (rows * canvas.width + columns).reshape(len(nuclei), 5)
    taken, polygons = ids.reshape(-1), canvas.pixels(outlines)
    for number, (polygon, spot) in enumerate(zip(polygons, spots, strict=True), start=1):
        if not taken[spot].any():
            fill_polygon(ids, polygon, number)
    for number, polygon in enumerate(polygons[:foremost], start=1):
        fill_polygon(ids, polygon, number)
    return ids
