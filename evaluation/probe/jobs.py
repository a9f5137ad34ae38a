"""One cell of a sweep: a predictor on a subset of frozen features."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from joblib import parallel_config
from joblib.parallel import BACKENDS
from numpy.typing import NDArray

from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.config import FOREST
from evaluation.probe.features import Features
from evaluation.probe.predictors import new_predictor

BLOCK = 8192
"""Test images predicted at a time: a process holds no copy of a large test set."""


@dataclass(frozen=True)
class Cell:
    """One predictor: its dataset, encoder, fold, size and repeat.

    Attributes:
        dataset, encoder: names.
        fold: number of the fold.
        size: requested labels; 0 is all of the pool.
        repeat: which draw.
        train: rows that carry labels.
        test: rows that are predicted.
        seed: a forest's random_state.
        predictor: which kind it is.
    """

    dataset: str
    encoder: str
    fold: int
    size: int
    repeat: int
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    seed: int
    predictor: str = FOREST

    def key(self, features: Features, trees: int) -> str:
        """Digest of everything that the predictions depend on."""
        digest = hashlib.sha256()
        setting = trees if self.predictor == FOREST else self.predictor
        decisive = (features.key, features.kind, setting, self.seed, sklearn.__version__)
        digest.update(repr([str(value) for value in decisive]).encode())
        for array in (features.targets[self.train], self.train, self.test):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]


def run_cell(
    cell: Cell, kind: TaskKind, features: NDArray[np.float32], targets: NDArray[Any], trees: int
) -> NDArray[Any]:
    """Fit on the cell's labelled rows and predict its test rows.

    Returns:
        float64 (t,) for regression, else the smallest unsigned type that holds the classes.
    """
    known = targets[cell.train]
    predictor = new_predictor(cell.predictor, kind, known, trees, cell.seed)
    predictor.fit(np.asarray(features[cell.train]), known)
    blocks = [
        predictor.predict(np.asarray(features[cell.test[start : start + BLOCK]]))
        for start in range(0, len(cell.test), BLOCK)
    ]
    predicted = np.concatenate(blocks)
    if kind is TaskKind.REGRESSION:
        return predicted.astype(np.float64)
    return predicted.astype(np.min_scalar_type(int(targets.max())))


STREAMING = {"loky", "threading", "multiprocessing", "sequential"}
"""joblib backends that hand out each result when it is ready; others get slices of the work."""

CLUSTERS = {"dask": ("dask.distributed", "distributed"), "ray": ("ray.util.joblib", "ray")}
"""Module and package of the backends that come with another library."""


@contextmanager
def connected(backend: str) -> Iterator[None]:
    """Let `joblib.Parallel` work on a backend, and let go of it afterwards.

    Dask finds its scheduler where DASK_SCHEDULER_ADDRESS says, Ray its cluster where RAY_ADDRESS
    does; without, both start processes on this machine. Workers need this project on their path.

    Args:
        backend: "loky", "threading", ..., "dask", "ray", or one that was registered with joblib.

    Raises:
        ProbeError: joblib knows no such backend, or its library is not installed.
    """
    if backend not in CLUSTERS:
        if backend not in BACKENDS:
            known = ", ".join(sorted({*BACKENDS, *CLUSTERS}))
            raise ProbeError(f"probe.backend={backend}: joblib knows {known}")
        with parallel_config(backend=backend):
            yield
        return
    module, package = CLUSTERS[backend]
    try:
        library: Any = importlib.import_module(module)
    except ImportError as error:
        raise ProbeError(f"probe.backend={backend}: {error}; pip install {package}") from error
    if backend == "ray":
        library.register_ray()
        with parallel_config(backend=backend):
            yield
    else:
        with library.Client(set_as_default=True), parallel_config(backend=backend):
            yield
