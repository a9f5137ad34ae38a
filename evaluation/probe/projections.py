"""Two-dimensional maps of features."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from datamodules.core.atomic import write_text
from evaluation.probe.features import Features
from evaluation.probe.folds import nested_order, seed_from, strata_of

COMPONENTS = 50  # passed to t-SNE; van der Maaten & Hinton, JMLR 9, 2008, use 30
TOGETHER = ""  # in place of a dataset's name: all unseen datasets in one map

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Projection:
    """Maps of features under one encoder."""

    dataset: str  # name; `TOGETHER` for a map of all, in which datasets take the place of classes
    encoder: str
    classes: tuple[str, ...]  # names; empty for a regression target
    values: list[float]  # index of the class, or regression target, of each point
    pca: Points
    explained: tuple[float, float]  # share of the variance that each principal component explains
    tsne: Points


def project(table: Features, seed: int, points: int = 1500) -> Projection:
    """Project at most `points` images, the same for every encoder."""
    rows = _choose(table, seed, points)
    pca, explained, tsne = _flatten(np.asarray(table.features[rows], np.float64), seed)
    values = [round(float(value), 4) for value in table.targets[rows]]
    return Projection(table.dataset, table.encoder, table.classes, values, pca, explained, tsne)


def project_together(tables: Sequence[Features], seed: int, points: int = 1500) -> Projection:
    """Project at most `points` images of several datasets into one map, the same number of each."""
    share = min(points // len(tables), *(len(table.targets) for table in tables))
    chosen = [_choose(table, seed, max(share, 1)) for table in tables]
    pairs = zip(tables, chosen, strict=True)
    features = np.concatenate([table.features[rows] for table, rows in pairs]).astype(np.float64)
    pca, explained, tsne = _flatten(features, seed)
    values = [float(number) for number, rows in enumerate(chosen) for _ in rows]
    names = tuple(table.dataset for table in tables)
    return Projection(TOGETHER, tables[0].encoder, names, values, pca, explained, tsne)


def _choose(table: Features, seed: int, points: int) -> NDArray[np.int64]:
    strata = strata_of(table.kind, table.targets)
    order = nested_order(strata, table.groups, seed_from(seed, table.dataset, "map"))
    return np.sort(order[:points])


def _flatten(
    features: NDArray[np.float64], seed: int
) -> tuple[Points, tuple[float, float], Points]:
    """Return principal components, the variance that two of them explain, and t-SNE."""
    # A few strong channels would hide the others.
    scaled = StandardScaler().fit_transform(features)
    count = max(2, min(COMPONENTS, len(scaled) - 1, scaled.shape[1]))
    pca = PCA(count, svd_solver="full", random_state=seed)
    components = pca.fit_transform(scaled)
    perplexity = min(30.0, max((len(scaled) - 1) / 3, 1.0))
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    first, second = (float(share) for share in pca.explained_variance_ratio_[:2])
    return _rounded(components[:, :2]), (first, second), _rounded(tsne.fit_transform(components))


def write_projections(path: Path, projections: Sequence[Projection]) -> None:
    """Write maps as JSON, atomically."""
    write_text(path, json.dumps([asdict(one) for one in projections]))


def read_projections(path: Path) -> list[Projection]:
    """Read what `write_projections` wrote."""
    return [
        Projection(**{**entry, "classes": tuple(entry["classes"])})
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]


def _rounded(points: NDArray[np.float64]) -> Points:
    return [(round(float(x), 3), round(float(y), 3)) for x, y in points]
