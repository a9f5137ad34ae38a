"""Collects finished jobs into a complete study, or a smaller one that notes what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.probe.features import Features
from evaluation.probe.folds import Fold
from evaluation.probe.jobs import Job, Place
from evaluation.statistics.metrics import metric_of
from evaluation.statistics.predictions import Predictions


class UnfinishedError(ProbeError):
    """A budget ended before anything could be compared."""


def collect(
    tables: Sequence[Features],
    folds: Sequence[Fold],
    jobs: Sequence[Job],
    finished: Mapping[Place, NDArray[Any]],
    baseline: str | None,
) -> list[Predictions]:
    """Collect the finished jobs of one dataset, one result per predictor.

    Where jobs are missing the result is smaller: all sizes with fewer repeats, or, if not even one
    repeat is complete, the complete sizes of the first repeat. A predictor other than the first
    without these is left out, and the first one's result notes it.

    Raises:
        UnfinishedError: not even one size of the first predictor is complete.
    """
    results: list[Predictions] = []
    for predictor in dict.fromkeys(job.predictor for job in jobs):
        chosen = [job for job in jobs if job.predictor == predictor]
        try:
            results.append(_collect(tables, folds, chosen, finished, baseline))
        except UnfinishedError:
            if not results:
                raise
            missing = f"predictor {predictor} did not fit into the budget"
            results[0] = replace(results[0], left_out=(*results[0].left_out, missing))
    return results


def _collect(
    tables: Sequence[Features],
    folds: Sequence[Fold],
    jobs: Sequence[Job],
    finished: Mapping[Place, NDArray[Any]],
    baseline: str | None,
) -> Predictions:
    """Put the finished jobs of one predictor into one array."""
    table, encoders = tables[0], tuple(one.encoder for one in tables)
    numbers = [fold.number for fold in folds]
    sizes, repeats, left_out = _complete(jobs, finished)
    kept = [job for job in jobs if job.size in sizes and job.repeat < repeats]
    rows = np.sort(np.concatenate([fold.test for fold in folds]))
    dtype = finished[kept[0].place].dtype
    dense = table.dense
    width = () if dense is None else (2 * dense.counted.shape[1],)
    predicted = np.empty((len(encoders), len(sizes), repeats, len(rows), *width), dtype)
    n_train = np.zeros((len(sizes), len(folds)), np.int64)
    seeds = np.zeros((len(sizes), repeats, len(folds)), np.int64)
    for job in kept:
        e, s, f = encoders.index(job.encoder), sizes.index(job.size), numbers.index(job.fold)
        found = finished[job.place].reshape(len(job.test), *width)
        predicted[e, s, job.repeat, np.searchsorted(rows, job.test)] = found
        n_train[s, f] = len(job.train)
        seeds[s, job.repeat, f] = job.seed
    fold_of, constant = np.empty(len(rows), np.int64), np.empty((len(rows), *width), dtype)
    for fold in folds:
        tested = np.searchsorted(rows, fold.test)
        fold_of[tested] = fold.number
        constant[tested] = _best_constant(table, fold)
    return Predictions(
        dataset=table.dataset,
        metric=metric_of(table.kind, table.positive, dense.task.kind if dense else None),
        encoders=encoders,
        baseline=baseline if baseline in encoders else None,
        sizes=sizes,
        fold_numbers=np.asarray(numbers, np.int64),
        n_train=n_train,
        seeds=seeds,
        rows=table.rows[rows],
        fold=fold_of,
        group=table.groups[rows].astype(np.int64),
        truth=(table.targets if dense is None else dense.counted)[rows],
        predicted=predicted,
        constant=constant,
        positive=table.positive,
        left_out=left_out,
        predictor=jobs[0].predictor,
    )


def _complete(
    jobs: Sequence[Job], finished: Mapping[Place, NDArray[Any]]
) -> tuple[tuple[int, ...], int, tuple[str, ...]]:
    """Return the sizes and repeats that every encoder and fold has, and what is left out."""
    sizes = tuple(dict.fromkeys(job.size for job in jobs))
    planned = 1 + max(job.repeat for job in jobs)
    unfinished = {(job.repeat, job.size) for job in jobs if job.place not in finished}
    repeats = min((repeat for repeat, _ in unfinished), default=planned)
    left_out = []
    if not repeats:
        kept = tuple(size for size in sizes if (0, size) not in unfinished)
        if not kept:
            raise UnfinishedError(
                f"{jobs[0].dataset}: no size was finished for every encoder and fold; raise "
                "probe.budget and probe again: finished work is kept"
            )
        dropped = ", ".join(str(size) if size else "all" for size in sizes if size not in kept)
        left_out.append(f"sizes {dropped} did not fit into the budget")
        sizes, repeats = kept, 1
    if repeats < planned:
        left_out.append(f"repeats {repeats + 1} to {planned} did not fit into the budget")
    return sizes, repeats, tuple(left_out)


def _best_constant(table: Features, fold: Fold) -> Any:
    """Return the best prediction from the pool's targets alone, never from the test's."""
    if table.dense is not None:
        return table.dense.constant(fold.pool, fold.test)
    if table.positive is not None:
        return table.positive
    pool = table.targets[fold.pool]
    if table.kind is TaskKind.REGRESSION:
        return pool.mean(dtype=np.float64)
    return np.bincount(pool).argmax()
