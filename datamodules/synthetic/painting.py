"""How much hematoxylin and eosin a synthetic field takes up: tissues, lumina and nuclei.

Amounts are in units of the stain's reference density: 0.35 of eosin is ordinary stroma, 1.0 of
hematoxylin a dark nucleus.
"""

from functools import partial

import cv2
import numpy as np

from datamodules.synthetic.canvas import Ids, Map, Points, edges
from datamodules.synthetic.nuclei import Nuclei
from datamodules.synthetic.plan import GOBLET, LUMEN, Plan
from datamodules.synthetic.tissues import Tissue

_BLUR_UM = 0.32  # deviation of the optics' point spread, about that of a 20x objective


def paint(plan: Plan, ids: Ids, nuclei: Nuclei, mitoses: Points) -> list[Map]:
    """Hematoxylin and eosin of a field whose nuclei are drawn; the cells of mitoses are clear."""
    hematoxylin, eosin = np.zeros((2, *plan.canvas.shape), np.float32)
    free = (ids == 0).astype(np.uint8)
    away, nearest = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 3)
    away = np.asarray(away * np.float32(plan.canvas.mpp), np.float32)
    present = np.bincount(plan.regions.ravel(), minlength=len(Tissue))
    for tissue in (tissue for tissue in Tissue if present[tissue]):
        if tissue in (Tissue.STROMA, Tissue.MUSCLE, Tissue.ADIPOSE, Tissue.MUCUS):
            blue, pink = _fibrous(plan, tissue)
        else:
            blue, pink = _cellular(plan, tissue, away, edges(nearest) * free)
        np.copyto(hematoxylin, blue, where=plan.regions == tissue, casting="same_kind")
        np.copyto(eosin, pink, where=plan.regions == tissue, casting="same_kind")
    if plan.glands:
        _open_holes(plan, hematoxylin, eosin)
    clear = np.ones(plan.canvas.shape, np.float32)
    plan.canvas.fill(clear, plan.canvas.outlines(mitoses, np.full((len(mitoses), 1), 6.0)), 0.55)
    hematoxylin, eosin = hematoxylin * clear, eosin * clear
    _add_nuclei(plan, ids, nuclei, hematoxylin, eosin)
    sigma = max(_BLUR_UM / plan.canvas.mpp, 0.45)
    return [np.maximum(cv2.GaussianBlur(a, (0, 0), sigma), 0.0) for a in (hematoxylin, eosin)]


def _step(values: Map, low: float, high: float) -> Map:
    """0 below `low`, 1 above `high`, smooth between."""
    part = np.clip((values - low) / (high - low), 0.0, 1.0)
    return np.asarray(part * part * (3.0 - 2.0 * part), np.float32)


def _fibrous(plan: Plan, tissue: Tissue) -> tuple[Map, Map]:
    """Hematoxylin and eosin of connective tissue and mucus."""
    noise, uniform = plan.canvas.noise, plan.canvas.rng.uniform
    strands = partial(plan.canvas.strands, plan.fibres)
    if tissue == Tissue.STROMA:  # wavy pink fibres with clefts, loose or dense by field
        thread, fine, coarse = strands(9.0, 0.9), strands(24.0, 2.2), strands(60.0, 7.0)
        loose = uniform(-1.5, -0.55)
        solid = _step(0.8 * coarse + 0.7 * fine + 0.3 * thread, loose - 0.3, loose + 0.3)
        amount = uniform(0.75, 1.15) * (0.05 + 0.95 * solid)
        eosin = amount * (0.32 + 0.06 * thread + 0.06 * fine + 0.04 * coarse)
        return amount * (uniform(0.04, 0.10) + 0.025 * thread), eosin
    if tissue == Tissue.MUSCLE:  # parallel strong pink bundles with thin white clefts
        thread, fine, bundle = strands(16.0, 1.0), strands(28.0, 2.5), strands(110.0, 6.5)
        solid = _step(bundle + 0.3 * fine + 0.2 * thread, -1.35, -1.0)
        eosin = (0.08 + 0.92 * solid) * (0.40 + 0.05 * thread + 0.05 * bundle)
        return (0.02 + 0.98 * solid) * (0.10 + 0.025 * thread), eosin
    if tissue == Tissue.ADIPOSE:  # empty cells between thin pink walls, thicker here and there
        wall = np.exp(-np.square(plan.walls_um / np.clip(0.8 + 0.6 * noise(35.0), 0.5, 2.5)))
        fine, film = noise(2.0), np.maximum(noise(60.0) - 1.0, 0.0)
        return wall * (0.09 + 0.03 * fine), 0.008 + wall * (0.30 + 0.04 * fine) + 0.03 * film
    # Mucus: pale, bluish, with threads drawn out in one direction.
    thread, stream, cloud = strands(18.0, 1.1), strands(60.0, 9.0), noise(25.0)
    depth = uniform(0.3, 1.3) * (1.0 + 0.3 * cloud)
    threads = _step(thread + 0.6 * stream + 0.3 * cloud, 0.5, 1.5)
    hematoxylin = np.maximum(depth * (0.10 + 0.04 * stream + 0.15 * threads), 0.008)
    return hematoxylin, np.maximum(depth * (0.035 + 0.02 * stream + 0.06 * threads), 0.008)


def _cellular(plan: Plan, tissue: Tissue, away_um: Map, borders: Map) -> tuple[Map, Map]:
    """Hematoxylin and eosin of cytoplasm, darker near nuclei and borders, and of empty glass."""
    noise, uniform = plan.canvas.noise, plan.canvas.rng.uniform
    if tissue == Tissue.DEBRIS:  # granular, pink to dirty purple, with clearings
        grain, clump, cloud = noise(1.3), noise(5.0), noise(28.0)
        solid = 0.15 + 0.85 * _step(cloud + 0.5 * clump, -1.2, -0.4)
        eosin = solid * (0.29 + 0.06 * grain + 0.05 * clump)
        return solid * (0.11 + 0.05 * grain + 0.05 * clump + 0.04 * cloud), eosin
    if tissue == Tissue.LYMPHOID:  # a scant rim of cytoplasm around each nucleus
        rim = np.exp(away_um / -uniform(0.9, 2.2))
        return 0.02 + 0.12 * rim, 0.04 + 0.22 * rim + 0.03 * noise(4.0)
    if tissue == Tissue.BACKGROUND:  # a trace of dirt
        trace = (1.5 + noise(40.0)) * 0.003
        return trace, 2 * trace
    # Epithelium: granular, darker around nuclei and at cell borders.
    body = uniform(0.8, 1.15) * (1.0 + 0.13 * noise(14.0) + 0.10 * noise(1.6))
    blue = 0.12 if tissue == Tissue.NORMAL else 0.14 + 0.10 * plan.malignancy
    near = 0.55 + 0.45 * np.exp(-np.square(away_um / 6.0))
    return body * blue * near + 0.02 * borders, body * 0.33 + 0.07 * borders


def _open_holes(plan: Plan, hematoxylin: Map, eosin: Map) -> None:
    """Empty the lumina, with a denser rim of cytoplasm around them, and fill goblet cells."""
    rng, shade = plan.canvas.rng, 1.0 + 0.3 * plan.canvas.noise(2.5)
    lumen, goblet = ((plan.holes == hole) & (plan.ids > 0) for hole in (LUMEN, GOBLET))
    width = max(3, round(3.0 / plan.canvas.mpp) | 1)
    eosin += 0.16 * cv2.blur(lumen.astype(np.float32), (width, width)) * (plan.ids > 0)
    secretion = rng.uniform(0.0, 0.16) if rng.random() < 0.4 else 0.01
    for hole, blue, pink in ((goblet, rng.uniform(0.03, 0.16), 0.05), (lumen, 0.005, secretion)):
        hematoxylin[hole], eosin[hole] = blue * shade[hole], pink * shade[hole]


def _add_nuclei(plan: Plan, ids: Ids, nuclei: Nuclei, hematoxylin: Map, eosin: Map) -> None:
    """Fill nuclei with chromatin, give them a membrane and some a nucleolus."""
    canvas, inside = plan.canvas, np.nonzero(ids)
    chromatin, clumping, membrane = (
        nuclei[name].astype(np.float32)[ids[inside] - 1]
        for name in ("chromatin", "clumping", "membrane")
    )
    grain = (canvas.noise(1.1) + canvas.noise(2.4))[inside]
    amount = chromatin * (1.0 + 0.7 * clumping * grain) + membrane * edges(ids)[inside]
    hematoxylin[inside] = np.maximum(amount, 0.3)
    eosin[inside] *= 0.7
    spotted = nuclei[nuclei["nucleolus"] > 0.35 * canvas.mpp]
    shift = canvas.rng.uniform(-0.35, 0.35, (len(spotted), 2)) * spotted["axes"][:, 1:]
    dots = np.zeros(canvas.shape, np.float32)
    radius = spotted["nucleolus"][:, None]
    canvas.fill(dots, canvas.outlines(spotted["centre"] + shift, radius), 0.45)
    hematoxylin += dots * (ids > 0)
