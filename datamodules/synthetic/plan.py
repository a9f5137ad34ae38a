"""Where things lie in a synthetic field: patches of tissue, and glands or nests among them.

Benign epithelium lines a lumen. With malignancy glands grow irregular, crowd and fuse, become
cribriform (several holes in a sheet of cells) and end as solid nests: the order of Gleason
patterns 3 to 5 and of the colon's grades.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.canvas import Canvas, Ids, Map, Points, edges
from datamodules.synthetic.tissues import Organ, Tissue

_CORNERS = 128
LUMEN, GOBLET = 1, 2  # values of `Plan.holes`
# Probability of each tissue to lie in a mixed field.
_BESIDE = dict.fromkeys([t for t in Tissue if t not in (Tissue.NORMAL, Tissue.TUMOUR)], 0.1)


@dataclass(frozen=True)
class Gland:
    """One gland or nest with its outline, x, y in µm."""

    outline: Points
    inward: Points  # unit vectors from the outline to the centre
    radius: Points  # distances from the outline to the centre in µm
    growth: str  # "lined", "cribriform" or "solid"
    height_um: float  # of the lining
    tumour: bool

    @property
    def angle(self) -> Points:
        """Directions in radians from the outline to the centre."""
        return np.asarray(np.arctan2(self.inward[:, 1], self.inward[:, 0]))

    def below(self, corners: NDArray[np.intp], depth_um: Points) -> Points:
        """Points that lie this deep below these corners of the outline."""
        return self.outline[corners] + self.inward[corners] * depth_um[:, None]


@dataclass(frozen=True)
class Plan:
    """Plan of a field; its maps have the shape (height, width)."""

    canvas: Canvas
    organ: Organ
    malignancy: float
    regions: NDArray[np.uint8]  # `Tissue`
    fibres: Map  # see `Canvas.fibres`; stroma and muscle follow them
    walls_um: Map  # distance from the walls between fat cells, where there is fat
    ids: Ids  # number of the gland, 0 outside; lumina belong to their gland
    holes: NDArray[np.uint8]  # LUMEN, GOBLET or 0
    glands: list[Gland] = field(default_factory=list)  # from number 1

    def within(self, tissue: Tissue, points: Points) -> Points:
        """The points that lie in a tissue."""
        return np.asarray(points[self.regions[self.canvas.indices(points)] == tissue])


def lay_out(
    canvas: Canvas,
    organ: Organ,
    tissue: Tissue | None,
    beside: Collection[Tissue],
    malignancy: float,
    share: float | None,
) -> Plan:
    """Plan a field; see `Slide.field`.

    In a mixed field glands turn to tumour one by one as malignancy goes from 0.05 to 0.3.
    """
    rng = canvas.rng
    regions = np.full(canvas.shape, Tissue.STROMA if tissue is None else tissue, np.uint8)
    tumour_share = float(tissue is Tissue.TUMOUR)
    if tissue is None:
        chances = _BESIDE | {Tissue.DEBRIS: 0.25 * malignancy} | dict.fromkeys(beside, 1.0)
        for other in sorted(chances, key=chances.__getitem__):  # what is certain comes on top
            if rng.random() < chances[other]:
                patch = canvas.noise(rng.uniform(60.0, 140.0))
                regions[patch > np.quantile(patch[::4, ::4], rng.uniform(0.70, 0.90))] = other
        tumour_share = min(max(4 * malignancy - 0.2, 0.0), 1.0)
        share = rng.uniform(0.15, 0.65) if share is None else share
    fibres = canvas.fibres(45.0, rng.uniform(2.0, 8.0))
    walls = _fat_walls(canvas) if (regions == Tissue.ADIPOSE).any() else fibres[0]
    maps = regions, fibres, walls, np.zeros(canvas.shape, np.int32), np.zeros_like(regions)
    plan = Plan(canvas, organ, malignancy, *maps)
    if tissue in (None, Tissue.NORMAL, Tissue.TUMOUR):
        regions[regions == tissue] = Tissue.STROMA
        _add_glands(plan, tumour_share, 1.0 if share is None else share)
    return plan


def _fat_walls(canvas: Canvas) -> Map:
    """Distance in µm of each pixel from the bent walls between fat cells of 50 to 80 µm."""
    free = np.ones(canvas.shape, np.uint8)
    free[canvas.indices(canvas.scatter(canvas.rng.uniform(50.0, 74.0), 0.6))] = 0
    free[[0, -1]] = free[:, [0, -1]] = 1  # what lies outside is no cell
    free[canvas.height // 2, canvas.width // 2] = 0
    _, cells = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    y, x = np.indices(canvas.shape, np.float32)
    bend = canvas.noise(26.0) * np.float32(2.5 / canvas.mpp)
    bent = cv2.remap(cells.astype(np.float32), x + bend, y - bend, cv2.INTER_NEAREST)
    inside = ~edges(np.asarray(bent, np.int32))
    away = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(away * np.float32(canvas.mpp), np.float32)


def _add_glands(plan: Plan, tumour_share: float, wished: float) -> None:
    """Grow glands, neighbours first, until they take the wished share of the field."""
    canvas, organ = plan.canvas, plan.organ
    crowding = plan.malignancy * tumour_share
    radius = organ.gland * (1.0 + 0.25 * crowding)
    pitch = 2.0 * radius + organ.gap * (1.0 - crowding)
    pitch *= (0.9 if wished == 1.0 else 1.0) * (1.0 - 0.16 * crowding)
    centres = plan.within(Tissue.STROMA, canvas.scatter(pitch, 0.25 + 0.4 * crowding))
    half = canvas.size_um / 2
    centres = centres[(np.abs(centres - half) < half + 0.6 * radius).all(axis=1)]
    together = np.argsort(canvas.noise(90.0)[canvas.indices(centres)])
    tissues = [0]
    for centre in centres[together[: math.ceil(wished * len(centres))]]:
        gland = _grow(plan, centre, radius, bool(canvas.rng.random() < tumour_share))
        _draw(plan, gland, gap_um=organ.gap * 0.35 * (1.0 - 0.8 * crowding))
        tissues.append(Tissue.TUMOUR if gland.tumour else Tissue.NORMAL)
    np.copyto(plan.regions, np.array(tissues, np.uint8)[plan.ids], where=plan.ids > 0)


def _grow(plan: Plan, centre: Points, radius_um: float, tumour: bool) -> Gland:
    """Shape one gland around its centre (x, y in µm)."""
    rng, organ = plan.canvas.rng, plan.organ
    grade = plan.malignancy if tumour else 0.0
    size = radius_um * np.exp(rng.normal(0.0, 0.10 + 0.22 * grade))
    stretch = organ.elongation ** rng.uniform(0.0, 0.5) * (1.0 + 0.2 * grade)
    axes, angle = size * np.array([[stretch, 1.0 / stretch]]), rng.uniform(0.0, np.pi)
    folding = organ.folding + 0.14 * grade
    outline = plan.canvas.outlines(centre[None], axes, angle, folding, _CORNERS)[0]
    growth = "lined"
    if organ.height >= organ.gland or rng.random() < (grade - 0.45) / 0.45:
        growth = "solid"
    elif rng.random() < min((grade - 0.25) / 0.5, 0.6):
        growth = "cribriform"
    height = organ.height * (1.0 + 0.4 * grade) * rng.uniform(0.9, 1.1)
    radius = np.linalg.norm(centre - outline, axis=1)
    inward = (centre - outline) / radius[:, None]
    return Gland(outline, inward, radius, growth, height, tumour)


def _draw(plan: Plan, gland: Gland, gap_um: float) -> None:
    """Draw a gland over what is there, with a gap of stroma around it."""
    canvas, outline = plan.canvas, gland.outline[None]
    canvas.fill(plan.ids, outline, 0, gap_um)
    canvas.fill(plan.holes, outline, 0, gap_um)
    plan.glands.append(gland)
    canvas.fill(plan.ids, outline, len(plan.glands))
    if gland.growth == "cribriform":
        corners = np.arange(0, _CORNERS, canvas.rng.integers(22, 40))
        size = gland.radius.mean() * canvas.rng.uniform(0.10, 0.24, len(corners))
        depth = gland.radius[corners] * canvas.rng.uniform(0.4, 0.7, len(corners))
        canvas.fill(plan.holes, _pockets(canvas, gland, corners, depth, size), LUMEN)
    elif gland.growth == "lined":
        left = np.maximum(gland.radius - gland.height_um, 0.0)
        left = np.minimum(left, 1.5 * np.percentile(left, 40) + 1.0)
        if left.mean() > 2.5:
            lumen = gland.below(np.arange(_CORNERS), gland.radius - left)
            canvas.fill(plan.holes, lumen[None], LUMEN)
        places = max(3, int(gland.radius.mean() / 1.75))
        share = plan.organ.goblets * (1.0 - plan.malignancy * gland.tumour) ** 2
        corners = np.flatnonzero(canvas.rng.random(places) < share) * _CORNERS // places
        depth = gland.height_um * canvas.rng.uniform(0.52, 0.72, len(corners))
        size = canvas.rng.uniform(0.18, 0.32, len(corners)) * gland.height_um
        canvas.fill(plan.holes, _pockets(canvas, gland, corners, depth, size), GOBLET)


def _pockets(
    canvas: Canvas, gland: Gland, corners: NDArray[np.intp], depth_um: Points, size_um: Points
) -> Points:
    """Outlines of small round holes below corners of a gland."""
    axes = size_um[:, None] * np.array([1.2, 1.0])
    return canvas.outlines(gland.below(corners, depth_um), axes, gland.angle[corners], 0.08)
