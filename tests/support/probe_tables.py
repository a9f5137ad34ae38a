"""Small tables of features and of predictions for tests of the probes."""

from __future__ import annotations

import numpy as np

from datamodules.core.records import TaskKind
from evaluation.probe.features import Features
from evaluation.statistics.metrics import F1, Metric
from evaluation.statistics.predictions import Predictions


def table(
    encoder: str = "ours",
    kind: TaskKind = TaskKind.CLASSIFICATION,
    classes: int = 2,
    folds: int = 2,
    dataset: str = "idc",
    noise: float = 1.0,
) -> Features:
    """Images of twelve patients whose features show the target through noise."""
    rng = np.random.default_rng(1)
    latent = rng.normal(size=72)
    groups = np.repeat(np.arange(12, dtype=np.int32), 6)
    rng = np.random.default_rng(len(encoder))
    features = latent[:, None] * rng.normal(size=4) + noise * rng.normal(size=(72, 4))
    targets = (
        latent.astype(np.float32)
        if kind is TaskKind.REGRESSION
        else np.digitize(latent, np.quantile(latent, np.arange(1, classes) / classes))
    )
    return Features(
        dataset=dataset,
        encoder=encoder,
        kind=kind,
        classes=() if kind is TaskKind.REGRESSION else tuple("abcdef"[:classes]),
        positive=1 if kind is TaskKind.CLASSIFICATION and classes == 2 else None,
        features=features.astype(np.float32),
        targets=targets,
        groups=groups,
        split=np.where(groups < 8, 0, 2).astype(np.uint8),
        folds=folds,
        key=f"{dataset}-{encoder}-{kind}-{noise}",
        rows=np.arange(72),
    )


def predictions(
    metric: Metric = F1, groups: int = 12, repeats: int = 5, seed: int = 0
) -> Predictions:
    """Two encoders, three sizes; the first encoder errs less, both less with more labels."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), 10)
    rows = len(group)
    truth = rng.integers(0, 2, rows) if metric is F1 else rng.normal(size=rows)
    error = np.array([0.8, 1.2])[:, None, None, None] / np.array([2, 3, 4])[:, None, None]
    shape = (2, 3, repeats, rows)
    if metric is F1:
        predicted = np.where(rng.random(shape) < error, 1 - truth, truth)
    else:
        predicted = truth + error * rng.normal(size=shape)
    return Predictions(
        dataset="idc",
        metric=metric,
        encoders=("ours", "imagenet:x"),
        baseline="imagenet:x",
        sizes=(10, 30, 0),
        fold_numbers=np.array([1]),
        n_train=np.array([[10], [30], [90]]),
        seeds=np.zeros((3, repeats, 1), np.int64),
        rows=np.arange(rows),
        fold=np.ones(rows, np.int64),
        group=group,
        truth=truth,
        predicted=predicted,
        constant=np.ones(rows) if metric is F1 else np.full(rows, truth.mean()),
        positive=1 if metric is F1 else None,
    )


def patients(rng: np.random.Generator, groups: int, repeats: int) -> np.ndarray:
    """Counts of two encoders: patients and draws of labels shift sensitivity and specificity."""
    positives = rng.binomial(20, rng.beta(2, 3, groups))
    patient = rng.normal(0, 0.7, (groups, 1, 1, 2)) + rng.normal(0, 0.35, (groups, 2, 1, 2))
    draw = rng.normal(0, 0.3, (1, 2, repeats, 2))
    start = np.array([[1.3, 1.5], [0.8, 1.2]])[None, :, None]
    rate = 1 / (1 + np.exp(-(start + patient + draw)))  # (groups, encoders, repeats, 2)
    truth = np.broadcast_to(positives[:, None, None], rate.shape[:3])
    hits = rng.binomial(truth, rate[..., 0])
    false = rng.binomial(20 - truth, 1 - rate[..., 1])
    parts = np.stack([hits, hits + false, truth], axis=-1).astype(float)
    return np.moveaxis(parts, 0, 2)[:, None]
