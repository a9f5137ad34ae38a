"""Predictors that learn from a few frozen features: random forests, and two simpler ones.

No setting is chosen per encoder; settings not mentioned are scikit-learn's defaults. The forest is
the study's headline; the others show whether a finding depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline

from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.config import FOREST, KNN, LINEAR, TITLES

REGRESSION_FEATURES = 1 / 3
"""Share of the features that a regression tree tries at each split: Breiman's choice (Liaw &
Wiener, R News 2/3, 2002, p. 18). All of them, scikit-learn's default, is bagging: similar trees,
and three times the time on 4000 x 1024 features."""

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""Neighbours vote with exp(cosine similarity / 0.07), as in Wu et al., CVPR 2018, section 3.4, and
Caron et al., ICCV 2021, appendix F.1."""


class CommonScale(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Subtracts each feature's mean; divides all by one number, the root of their mean variance.

    A scale per feature, estimated from the same few labelled images, would be tiny for a feature
    that hardly varies among them and make it huge on all other images.
    """

    def fit(self, features: NDArray[np.float32], targets: object = None) -> CommonScale:
        """Estimate mean and scale from features (n, d)."""
        self.mean_ = features.mean(0, dtype=np.float64)
        spread = float(np.sqrt(features.var(0, dtype=np.float64).mean()))
        self.scale_ = spread or 1.0
        return self

    def transform(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return features (n, d) with mean 0 and a mean variance of 1."""
        return np.asarray((features - self.mean_) / self.scale_)


def new_predictor(
    name: str, kind: TaskKind, targets: NDArray[Any], trees: int = 500, seed: int = 0
) -> Any:
    """Return an estimator for labelled images with these targets; trees and seed are a forest's.

    Raises:
        ProbeError: no such predictor.
    """
    check_predictors([name])
    regression = kind is TaskKind.REGRESSION
    if not regression and len(np.unique(targets)) == 1:
        return DummyClassifier()  # with one class there is only one prediction
    if name == LINEAR:
        # The default of 100 iterations is too few for wide features.
        linear = Ridge() if regression else LogisticRegression(max_iter=1000)
        return make_pipeline(CommonScale(), linear)
    if name == KNN:
        neighbours = KNeighborsRegressor if regression else KNeighborsClassifier
        return neighbours(min(NEIGHBOURS, len(targets)), weights=vote, metric="cosine", n_jobs=1)
    settings = {"random_state": seed, "n_jobs": 1}
    if regression:
        return RandomForestRegressor(trees, max_features=REGRESSION_FEATURES, **settings)
    return RandomForestClassifier(trees, **settings)


def vote(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights of neighbours at these cosine distances."""
    return np.asarray(np.exp(-distances / TEMPERATURE))


def check_predictors(names: Sequence[str]) -> None:
    """Check the names of predictors.

    Raises:
        ProbeError: none is named, one twice, or one that does not exist.
    """
    unknown = [name for name in names if name not in TITLES]
    if unknown or not names or len(set(names)) < len(names):
        raise ProbeError(
            f"probe.predictors={list(names)}: name at least one of {', '.join(TITLES)}, each once"
        )


def headline_first(names: Sequence[str]) -> list[str]:
    """Return the predictors with the forest first: it is the study's headline if it is included."""
    return sorted(names, key=lambda name: name != FOREST)
