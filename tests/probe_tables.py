"""Small tables of features for tests of the probes."""

from __future__ import annotations

import numpy as np

from datamodules.records import TaskKind
from evaluation.features import Features


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
    )
