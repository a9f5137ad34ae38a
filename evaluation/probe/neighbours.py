"""Nearest neighbours: the images of other patients that are most similar under an encoder."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import TaskKind
from evaluation.probe.features import Features
from evaluation.probe.folds import nested_order, seed_from, strata_of

NEAREST = 4  # neighbours of each image


@dataclass(frozen=True)
class Neighbours:
    """A few images of a dataset and their nearest neighbours under one encoder.

    Agreement is the share of the same class, or the mean absolute difference of targets.
    """

    table: Features
    queries: NDArray[np.int64]  # rows of the images in the table, (q,)
    nearest: NDArray[np.int64]  # rows of their neighbours, the nearest first, (q, k)
    agreement: float  # over all candidates
    chance: float  # the same for random images of other groups
    candidates: int  # number of images among which neighbours were searched

    def label(self, row: int) -> str:
        """Return the target of a row in words."""
        value = self.table.targets[row]
        if self.table.kind is TaskKind.REGRESSION:
            return f"{float(value):.2f}"
        return self.table.classes[int(value)]


def find_neighbours(table: Features, queries: int, points: int, seed: int) -> Neighbours:
    """Find the nearest images by cosine similarity, never of the same group.

    Images of one patient or slide share stain and scanner, so finding them would show nothing
    about the tissue. The dataset needs two groups. The choice of the queries, in which strata take
    turns, and of at most `points` candidates is the same for every encoder.
    """
    strata = strata_of(table.kind, table.targets)
    order = nested_order(strata, table.groups, seed_from(seed, table.dataset, "neighbours"))
    # The first images of the order, up to the second group if that comes later.
    second = np.flatnonzero(table.groups[order] != table.groups[order[0]])[0]
    rows = np.asarray(order[: max(points, second + 1)], np.int64)
    features = np.asarray(table.features[rows], np.float32)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    other = table.groups[rows][:, None] != table.groups[rows]
    similar = np.where(other, features @ features.T, -np.inf)
    count = min(NEAREST, int(other.sum(1).min()))
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :count]
    targets = table.targets[rows]
    regression = table.kind is TaskKind.REGRESSION
    alike = np.abs(targets[:, None] - targets) if regression else targets[:, None] == targets
    return Neighbours(
        table=table,
        queries=rows[:queries],
        nearest=rows[nearest[:queries]],
        agreement=float(np.take_along_axis(alike, nearest, 1).mean()),
        chance=float(alike[other].mean()),
        candidates=len(rows),
    )
