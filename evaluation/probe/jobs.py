"""One job of a sweep (fit a predictor, predict the test rows), and the journal of finished jobs."""

import base64
import hashlib
import importlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from joblib import parallel_config
from joblib.parallel import BACKENDS
from numpy.typing import NDArray

from datamodules.core.disk_space import naming
from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.config import FOREST
from evaluation.probe.features import Features
from evaluation.probe.predictors import new_predictor

BLOCK = 8192  # test images predicted at a time, so that no process copies a large test set

Place = tuple[str, str, str, int, int, int]
"""(dataset, encoder, predictor, fold, size, repeat): identifies a job of a sweep."""


@dataclass(frozen=True)
class Job:
    """One predictor to fit and test."""

    dataset: str
    encoder: str
    predictor: str
    fold: int
    size: int  # requested labels; 0 is all of the pool
    repeat: int
    train: NDArray[np.int64]  # rows that carry labels
    test: NDArray[np.int64]  # rows that are predicted
    seed: int  # a forest's random_state

    @property
    def place(self) -> Place:
        """Place in the study."""
        return (self.dataset, self.encoder, self.predictor, self.fold, self.size, self.repeat)

    def key(self, features: Features, trees: int) -> str:
        """Return a digest of everything that the predictions depend on."""
        digest = hashlib.sha256()
        setting = trees if self.predictor == FOREST else self.predictor
        decisive = (features.key, features.kind, setting, self.seed, sklearn.__version__)
        digest.update(repr([str(value) for value in decisive]).encode())
        for array in (features.targets[self.train], self.train, self.test):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]


def run_job(
    job: Job, kind: TaskKind, features: NDArray[np.float32], targets: NDArray[Any], trees: int
) -> tuple[Place, NDArray[Any]]:
    """Fit on the labelled rows; return the job's place and predictions of its test rows (t,).

    They are float64 for regression, else of the smallest unsigned type that holds the classes.
    """
    known = targets[job.train]
    predictor = new_predictor(job.predictor, kind, known, trees, job.seed)
    predictor.fit(np.asarray(features[job.train]), known)
    blocks = [
        predictor.predict(np.asarray(features[job.test[start : start + BLOCK]]))
        for start in range(0, len(job.test), BLOCK)
    ]
    regression = kind is TaskKind.REGRESSION
    dtype = np.dtype(np.float64) if regression else np.min_scalar_type(int(targets.max()))
    return job.place, np.concatenate(blocks).astype(dtype)


class Journal(dict[str, NDArray[Any]]):
    """Predictions of finished jobs by key, which are never computed again.

    The file, which need not exist, has one line of JSON per job, appended in one write. A line that
    an interruption cut short does not parse or fit its checksum; it is ignored.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        content = path.read_bytes() if path.is_file() else b""
        self.update(entry for line in content.split(b"\n") if (entry := _parse(line)) is not None)
        self._torn = bool(content) and not content.endswith(b"\n")

    def add(self, key: str, predicted: NDArray[Any]) -> None:
        """Keep one job's predictions; they are on disk when this returns."""
        raw = predicted.tobytes()
        entry = {
            "key": key,
            "type": predicted.dtype.str,
            "crc": zlib.crc32(raw),
            "data": base64.b64encode(zlib.compress(raw, 6)).decode(),
        }
        line = json.dumps(entry).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("ab") as file:
            torn, self._torn = self._torn, True
            file.write(b"\n" + line if torn else line)  # end a line that was cut short
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self[key] = predicted


def _parse(line: bytes) -> tuple[str, NDArray[Any]] | None:
    try:
        entry = json.loads(line)
        raw = zlib.decompress(base64.b64decode(entry["data"]))
        if zlib.crc32(raw) != entry["crc"]:
            return None
        return entry["key"], np.frombuffer(raw, np.dtype(entry["type"]))
    except (ValueError, KeyError, TypeError, zlib.error):
        return None


STREAMING = {"loky", "threading", "multiprocessing", "sequential"}
"""joblib backends that return each result when it is ready; others get slices of the work."""

CLUSTERS = {"dask": ("dask.distributed", "distributed"), "ray": ("ray.util.joblib", "ray")}
"""Module and package of the backends that come with another library."""


@contextmanager
def connected(backend: str) -> Iterator[None]:
    """Run `joblib.Parallel` on a backend that joblib knows, or on Dask or Ray; then disconnect.

    Dask finds its scheduler through DASK_SCHEDULER_ADDRESS, Ray its cluster through RAY_ADDRESS;
    without them both start processes on this machine. Workers need this project on their path.

    Raises:
        ProbeError: joblib does not know the backend, or its library is not installed.
    """
    if backend not in CLUSTERS and backend not in BACKENDS:
        known = ", ".join(sorted({*BACKENDS, *CLUSTERS}))
        raise ProbeError(f"probe.backend={backend}: joblib knows {known}")
    with ExitStack() as stack:
        if backend in CLUSTERS:
            module, package = CLUSTERS[backend]
            try:
                library: Any = importlib.import_module(module)
            except ImportError as error:
                text = f"probe.backend={backend}: {error}; pip install {package}"
                raise ProbeError(text) from error
            if backend == "ray":
                library.register_ray()
            else:
                stack.enter_context(library.Client(set_as_default=True))
        stack.enter_context(parallel_config(backend=backend))
        yield
