"""The result of a sweep: every prediction, and the tidy table that follows from it.

Predictions are kept, not only scores, because intervals resample test patients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datamodules.core.atomic import atomic_path
from datamodules.core.errors import ProbeError
from evaluation.config import FOREST
from evaluation.statistics.metrics import METRICS, Metric, score

SCHEMA = 1
CONSTANT = "constant"

COLUMNS = [
    "dataset",
    "encoder",
    "predictor",
    "fold",
    "size",
    "n_train",
    "repeat",
    "seed",
    "metric",
    "value",
]


@dataclass(frozen=True)
class Predictions:
    """All test predictions of one predictor on one dataset.

    E encoders, S sizes, R repeats, F folds, T test rows.

    Attributes:
        dataset: name.
        metric: what its scores are.
        encoders: names, (E,).
        baseline: name of the encoder that others are compared with; None without one.
        sizes: requested numbers of labels, 0 last for "all", (S,).
        fold_numbers: int64 (F,).
        n_train: labels in use, int64 (S, F).
        seeds: of the predictors, int64 (S, R, F).
        rows: rows of the store that are tested, int64 (T,); every row at most once.
        fold: number of the fold that tests each of them, int64 (T,).
        group: patient, slide or case of each, int64 (T,).
        truth: target of each, (T,).
        predicted: (E, S, R, T).
        constant: the best prediction that knows no image, (T,): always positive for F1, the
            pool's most frequent class for macro F1, the pool's mean for MSE.
        positive: class that counts for F1.
        left_out: what a budget did not allow, in words.
        predictor: what learnt from the features: "forest", "linear" or "knn".
    """

    dataset: str
    metric: Metric
    encoders: tuple[str, ...]
    baseline: str | None
    sizes: tuple[int, ...]
    fold_numbers: NDArray[np.int64]
    n_train: NDArray[np.int64]
    seeds: NDArray[np.int64]
    rows: NDArray[np.int64]
    fold: NDArray[np.int64]
    group: NDArray[np.int64]
    truth: NDArray[Any]
    predicted: NDArray[Any]
    constant: NDArray[Any]
    positive: int | None
    left_out: tuple[str, ...] = ()
    predictor: str = FOREST

    @property
    def repeats(self) -> int:
        """Draws of the nested subsets."""
        return int(self.predicted.shape[2])

    @property
    def labels(self) -> NDArray[np.float64]:
        """Labelled images behind each size, the mean over folds, (S,)."""
        return np.asarray(self.n_train.mean(axis=1))


def tidy(results: Iterable[Predictions]) -> pd.DataFrame:
    """One row per (dataset, predictor, encoder, fold, size, repeat), in that order.

    `value` is the score of that fold alone. Where there are several folds the study's own score
    pools their predictions first (see statistics.py), so it is not the mean of these values.
    """
    table: list[tuple[Any, ...]] = []
    for result in results:
        first = all(row[0] != result.dataset for row in table)
        table += _rows_of(result)
        table += _constant_rows(result) if first else []  # it is the same beside every predictor
    return pd.DataFrame(table, columns=COLUMNS)


def _rows_of(result: Predictions) -> list[tuple[Any, ...]]:
    metric, positive = result.metric, result.positive
    rows: list[tuple[Any, ...]] = []
    tested = _tested(result)
    for e, encoder in enumerate(result.encoders):
        names = (result.dataset, encoder, result.predictor)
        for f, (fold, test) in enumerate(tested.items()):
            for s, size in enumerate(result.sizes):
                for repeat in range(result.repeats):
                    value = score(
                        metric, result.truth[test], result.predicted[e, s, repeat, test], positive
                    )
                    facts = (fold, size, int(result.n_train[s, f]), repeat)
                    seed = int(result.seeds[s, repeat, f])
                    rows.append((*names, *facts, seed, metric.name, value))
    return rows


def _constant_rows(result: Predictions) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for f, (fold, test) in enumerate(_tested(result).items()):
        value = score(result.metric, result.truth[test], result.constant[test], result.positive)
        for s, size in enumerate(result.sizes):
            facts = (fold, size, int(result.n_train[s, f]), 0)
            rows.append((result.dataset, "", CONSTANT, *facts, 0, result.metric.name, value))
    return rows


def _tested(result: Predictions) -> dict[int, NDArray[np.int64]]:
    """Positions of the test rows of each fold."""
    return {int(f): np.flatnonzero(result.fold == f) for f in result.fold_numbers}


_ARRAYS = (
    "fold_numbers",
    "n_train",
    "seeds",
    "rows",
    "fold",
    "group",
    "truth",
    "predicted",
    "constant",
)


def write_predictions(path: Path, results: Sequence[Predictions]) -> None:
    """Write all results into one HDF5 file, atomically."""
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
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
            for name in _ARRAYS:
                values = getattr(result, name)
                chunks = (1, 1, 1, max(len(result.rows), 1)) if name == "predicted" else True
                node.create_dataset(
                    name, data=values, chunks=chunks, compression="gzip", shuffle=True
                )


def read_predictions(path: Path) -> list[Predictions]:
    """Read what `write_predictions` wrote.

    Raises:
        ProbeError: missing, damaged or of another schema version.
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
        # Files without this attribute are from before there was anything but forests.
        predictor=str(node.attrs.get("predictor", FOREST)),
        metric=METRICS[str(node.attrs["metric"])],
        encoders=tuple(str(name) for name in node.attrs["encoders"]),
        baseline=str(node.attrs["baseline"]) or None,
        sizes=tuple(int(size) for size in node.attrs["sizes"]),
        positive=None if positive < 0 else positive,
        left_out=tuple(str(text) for text in node.attrs["left_out"] if text),
        **{name: node[name][:] for name in _ARRAYS},
    )
