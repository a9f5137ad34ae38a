"""The result of a sweep: every prediction (intervals resample patients), and a table of scores."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datamodules.core.atomic import atomic_path
from datamodules.core.errors import ProbeError
from datamodules.core.hdf5 import NewFile
from evaluation.config import FOREST
from evaluation.statistics.metrics import METRICS, Metric, parts_by_group, score_of_parts

SCHEMA = 1
CONSTANT = "constant"

Array = NDArray[Any]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """All test predictions of one predictor on one dataset.

    E encoders, S sizes, R repeats, F folds, T test rows. Dense tasks have a further axis in truth,
    predictions and constant: counts of pixels or objects, see `parts_by_group`. The constant is the
    best prediction without looking at an image: always positive for F1, the pool's most frequent
    class for macro F1, the pool's mean for MSE.
    """

    dataset: str
    metric: Metric
    encoders: tuple[str, ...]  # names, (E,)
    baseline: str | None  # encoder that others are compared with; None without one
    sizes: tuple[int, ...]  # requested numbers of labels, 0 last for "all", (S,)
    fold_numbers: Integers  # (F,) int64
    n_train: Integers  # labels in use, (S, F) int64
    seeds: Integers  # of the predictors, (S, R, F) int64
    rows: Integers  # tested rows of the store, (T,) int64
    fold: Integers  # number of the fold that tests each row, (T,) int64
    group: Integers  # patient, slide or case of each row, (T,) int64
    truth: Array  # target of each row, (T,)
    predicted: Array  # (E, S, R, T)
    constant: Array  # (T,)
    positive: int | None  # class that F1 counts
    left_out: tuple[str, ...] = ()  # what did not fit into the budget, in words
    predictor: str = FOREST  # "forest", "linear" or "knn"

    @property
    def repeats(self) -> int:
        """Draws of the nested subsets, R."""
        return int(self.predicted.shape[2])

    @property
    def labels(self) -> NDArray[np.float64]:
        """Labelled images behind each size, the mean over folds, (S,)."""
        return np.asarray(self.n_train.mean(axis=1))

    @property
    def protocol(self) -> str:
        """Digest of test images, targets, folds and label counts: equal for comparable scores."""
        digest = hashlib.sha256(f"{self.dataset} {self.metric.name} {self.sizes}".encode())
        for array in (self.rows, self.fold, self.group, self.truth, self.n_train):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:12]


ARRAYS = [
    name for name, kind in get_type_hints(Predictions).items() if get_origin(kind) is np.ndarray
]


def tidy(results: Iterable[Predictions]) -> pd.DataFrame:
    """Return one row per (dataset, predictor, encoder, fold, size, repeat), in that order.

    `value` is the score of that fold alone. With several folds the study's own score pools their
    predictions first (see summary.py), so it is not the mean of these values.
    """
    rows: list[dict[str, Any]] = []
    datasets: set[str] = set()
    for result in results:
        for encoder, predicted in zip(result.encoders, result.predicted, strict=True):
            rows += _rows(result, encoder, result.predictor, predicted, result.seeds)
        if result.dataset not in datasets:  # the constant is the same for every predictor
            datasets.add(result.dataset)
            shape = (len(result.sizes), 1, *result.constant.shape)
            constant = np.broadcast_to(result.constant, shape)
            rows += _rows(result, "", CONSTANT, constant, np.zeros_like(result.seeds))
    return pd.DataFrame(rows)


def _rows(
    result: Predictions, encoder: str, predictor: str, predicted: Array, seeds: Integers
) -> list[dict[str, Any]]:
    """Return the rows of one encoder's predictions (S, R, T)."""
    folds = result.fold_numbers
    fold = np.searchsorted(folds, result.fold)
    parts = parts_by_group(
        result.metric, result.truth, predicted, fold, len(folds), result.positive
    )
    values = score_of_parts(result.metric, parts)  # (S, R, F)
    return [
        {
            "dataset": result.dataset,
            "encoder": encoder,
            "predictor": predictor,
            "fold": int(folds[f]),
            "size": result.sizes[s],
            "n_train": int(result.n_train[s, f]),
            "repeat": repeat,
            "seed": int(seeds[s, repeat, f]),
            "metric": result.metric.name,
            "value": float(values[s, repeat, f]),
        }
        for f, s, repeat in np.ndindex(len(folds), *predicted.shape[:2])
    ]


def write_predictions(path: Path, results: Sequence[Predictions]) -> None:
    """Write all results into one HDF5 file, atomically."""
    with atomic_path(path) as partial, NewFile(partial) as file:
        file.attrs["schema"] = SCHEMA
        for position, result in enumerate(results):
            node = file.create_group(f"{position:03d}")
            node.attrs["dataset"] = result.dataset
            node.attrs["predictor"] = result.predictor
            node.attrs["metric"] = result.metric.name
            node.attrs["encoders"] = list(result.encoders)
            node.attrs["baseline"] = result.baseline or ""
            node.attrs["sizes"] = list(result.sizes)
            node.attrs["positive"] = -1 if result.positive is None else result.positive
            node.attrs["left_out"] = list(result.left_out) or [""]
            for name in ARRAYS:
                values = getattr(result, name)
                chunks = (1, 1, 1, *values.shape[3:]) if name == "predicted" else True
                node.create_dataset(
                    name, data=values, chunks=chunks, compression="gzip", shuffle=True
                )


def read_predictions(path: Path) -> list[Predictions]:
    """Read what `write_predictions` wrote.

    Raises:
        ProbeError: the file is missing, damaged or of another schema version.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("schema") != SCHEMA:
                raise ProbeError(f"{path}: schema {file.attrs.get('schema')}, needs {SCHEMA}")
            return [_read(file[name]) for name in sorted(file)]
    except (OSError, KeyError) as error:
        raise ProbeError(f"{path}: no readable predictions ({error}); probe again") from error


def _read(node: Any) -> Predictions:
    positive = int(node.attrs["positive"])
    return Predictions(
        dataset=str(node.attrs["dataset"]),
        # Files without this attribute are older than all predictors but forests.
        predictor=str(node.attrs.get("predictor", FOREST)),
        metric=METRICS[str(node.attrs["metric"])],
        encoders=tuple(str(name) for name in node.attrs["encoders"]),
        baseline=str(node.attrs["baseline"]) or None,
        sizes=tuple(int(size) for size in node.attrs["sizes"]),
        positive=None if positive < 0 else positive,
        left_out=tuple(str(text) for text in node.attrs["left_out"] if text),
        **{name: node[name][:] for name in ARRAYS},
    )
