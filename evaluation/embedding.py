"""Two-dimensional maps of features, to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from evaluation.features import Features
from evaluation.subsets import nested_order, seed_from, strata_of

COMPONENTS = 50
"""Principal components that t-SNE sees (van der Maaten & Hinton, JMLR 9, 2008, take 30)."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Projection:
    """Maps of one dataset's features under one encoder.

    Attributes:
        dataset, encoder: names.
        classes: class names; empty for a regression target.
        values: class index or regression target of each point.
        pca: first two principal components.
        explained: share of the variance that each of the two holds.
        tsne: t-SNE coordinates.
    """

    dataset: str
    encoder: str
    classes: tuple[str, ...]
    values: list[float]
    pca: Points
    explained: tuple[float, float]
    tsne: Points


def project(table: Features, seed: int, points: int = 1500) -> Projection:
    """Project at most `points` images, the same ones for every encoder.

    Features are standardised first: an encoder's few strong channels would hide the others.
    """
    strata = strata_of(table.kind, table.targets)
    order = nested_order(strata, table.groups, seed_from(seed, table.dataset, "map"))
    rows = np.sort(order[:points])
    scaled = StandardScaler().fit_transform(np.asarray(table.features[rows], np.float64))
    count = max(2, min(COMPONENTS, len(rows) - 1, scaled.shape[1]))
    pca = PCA(count, svd_solver="full", random_state=seed)
    components = pca.fit_transform(scaled)
    perplexity = min(30.0, max((len(rows) - 1) / 3, 1.0))
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    explained = pca.explained_variance_ratio_
    return Projection(
        dataset=table.dataset,
        encoder=table.encoder,
        classes=table.classes,
        values=[round(float(value), 4) for value in table.targets[rows]],
        pca=_rounded(components[:, :2]),
        explained=(float(explained[0]), float(explained[1])),
        tsne=_rounded(tsne.fit_transform(components)),
    )


def write_projections(path: Path, projections: Sequence[Projection]) -> None:
    """Write maps as JSON, atomically."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps([asdict(one) for one in projections]), encoding="utf-8")
    partial.replace(path)


def read_projections(path: Path) -> list[Projection]:
    """Read what `write_projections` wrote."""
    return [
        Projection(**{**entry, "classes": tuple(entry["classes"])})
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]


def _rounded(points: NDArray[np.float64]) -> Points:
    return [(round(float(x), 3), round(float(y), 3)) for x, y in points]
