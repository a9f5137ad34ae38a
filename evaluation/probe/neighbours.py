"""Nearest neighbours: which images of other patients an encoder takes for alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import TaskKind
from evaluation.probe.features import Features
from evaluation.probe.folds import nested_order, seed_from, strata_of

NEAREST = 4
"""Neighbours of each image."""


@dataclass(frozen=True)
class Neighbours:
    """A few images of a dataset and what lies nearest to them under one encoder.

    Attributes:
        table: the features; rows are those of the store.
        queries: rows of the images, (q,).
        nearest: rows of their neighbours, the nearest first, (q, k).
        agreement: over all images looked at: share of neighbours of the same class, or mean
            absolute difference of a regression target.
        chance: the same for images of other groups drawn at random.
        looked_at: how many images that are.
    """

    table: Features
    queries: NDArray[np.int64]
    nearest: NDArray[np.int64]
    agreement: float
    chance: float
    looked_at: int


def find_neighbours(table: Features, queries: int, points: int, seed: int) -> Neighbours:
    """The nearest images by cosine similarity, never of the same group.

    Images of one patient or slide are alike in stain and scanner; that an encoder finds them
    says nothing about what it sees of the tissue.

    Args:
        table: features of a dataset of two groups or more.
        queries: images to show; strata take turns, the same ones for every encoder.
        points: images to look at, at most; the same ones for every encoder.
        seed: of the choice.
    """
    strata = strata_of(table.kind, table.targets)
    order = nested_order(strata, table.groups, seed_from(seed, table.dataset, "neighbours"))
    rows = _several_groups(order, table.groups, points)
    features = np.asarray(table.features[rows], np.float32)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    other = table.groups[rows][:, None] != table.groups[rows]
    similar = np.where(other, features @ features.T, -np.inf)
    count = min(NEAREST, int(other.sum(1).min()))
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :count]
    alike = _alike(table.kind, table.targets[rows])
    return Neighbours(
        table=table,
        queries=rows[:queries],
        nearest=rows[nearest[:queries]],
        agreement=float(np.take_along_axis(alike, nearest, 1).mean()),
        chance=float(alike[other].mean()),
        looked_at=len(rows),
    )


def _several_groups(
    order: NDArray[np.int64], groups: NDArray[np.int32], points: int
) -> NDArray[np.int64]:
    """The first images of an order, up to the second group if that comes later."""
    second = np.flatnonzero(groups[order] != groups[order[0]])[0]
    return np.asarray(order[: max(points, second + 1)], np.int64)


def _alike(kind: TaskKind, targets: NDArray[Any]) -> NDArray[Any]:
    """(n, n): same class, or absolute difference of the targets."""
    if kind is TaskKind.REGRESSION:
        return np.asarray(np.abs(targets[:, None] - targets))
    return np.asarray(targets[:, None] == targets)
