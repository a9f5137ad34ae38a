"""One cell of a sweep: a random forest on a subset of frozen features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from datamodules.records import TaskKind
from evaluation.features import Features

BLOCK = 8192
"""Test images predicted at a time: a process holds no copy of a large test set."""

REGRESSION_FEATURES = 1 / 3
"""Share of the features that a regression tree tries at each split.

A third is what Breiman's method prescribes for regression (Liaw & Wiener, "Classification and
Regression by randomForest", R News 2/3, 2002, p. 18). scikit-learn's default is all of them, which
is bagging: its trees resemble each other, and on 4000 x 1024 features it takes three times as long.
"""


@dataclass(frozen=True)
class Cell:
    """One forest: dataset, encoder, fold, size and repeat, by position within the sweep.

    Attributes:
        dataset, encoder: names.
        fold: number of the fold.
        size: requested labels; 0 is all of the pool.
        repeat: which draw.
        train: rows that carry labels.
        test: rows that are predicted.
        seed: the forest's random_state.
    """

    dataset: str
    encoder: str
    fold: int
    size: int
    repeat: int
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    seed: int

    def key(self, features: Features, trees: int) -> str:
        """Digest of everything that the predictions depend on."""
        digest = hashlib.sha256()
        decisive = (features.key, features.kind, trees, self.seed, sklearn.__version__)
        digest.update(repr([str(value) for value in decisive]).encode())
        for array in (features.targets[self.train], self.train, self.test):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]


def new_forest(kind: TaskKind, trees: int, seed: int) -> Any:
    """A forest with scikit-learn's defaults but for the number of trees and `max_features`."""
    if kind is TaskKind.REGRESSION:
        return RandomForestRegressor(
            trees, max_features=REGRESSION_FEATURES, random_state=seed, n_jobs=1
        )
    return RandomForestClassifier(trees, random_state=seed, n_jobs=1)


def run_cell(
    cell: Cell, kind: TaskKind, features: NDArray[np.float32], targets: NDArray[Any], trees: int
) -> NDArray[Any]:
    """Fit on the cell's labelled rows and predict its test rows.

    Returns:
        float64 (t,) for regression, else the smallest unsigned type that holds the classes.
    """
    forest = new_forest(kind, trees, cell.seed)
    forest.fit(np.asarray(features[cell.train]), targets[cell.train])
    blocks = [
        forest.predict(np.asarray(features[cell.test[start : start + BLOCK]]))
        for start in range(0, len(cell.test), BLOCK)
    ]
    predicted = np.concatenate(blocks)
    if kind is TaskKind.REGRESSION:
        return predicted.astype(np.float64)
    return predicted.astype(np.min_scalar_type(int(targets.max())))
