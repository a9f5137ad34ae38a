"""From finished cells to a complete study: rectangular, or smaller and said to be so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.probe.features import Features
from evaluation.probe.folds import Fold
from evaluation.probe.jobs import Cell
from evaluation.statistics.metrics import metric_of
from evaluation.statistics.predictions import Predictions

Place = tuple[str, str, int, int, int]
"""(dataset, encoder, fold, size, repeat)."""


class UnfinishedError(ProbeError):
    """A budget ended before anything could be compared."""


def assemble(
    tables: Sequence[Features],
    folds: Sequence[Fold],
    cells: Sequence[Cell],
    found: Mapping[Place, NDArray[Any]],
    baseline: str | None,
) -> Predictions:
    """Put the finished cells of one dataset and predictor into one array.

    Where cells are missing, what stays is complete in itself: all sizes with fewer repeats, or,
    where not even one repeat is complete, the sizes of the first repeat that are.

    Raises:
        UnfinishedError: not even one size is complete.
    """
    table = tables[0]
    encoders = tuple(t.encoder for t in tables)
    sizes, repeats, left_out = _complete(table.dataset, encoders, folds, cells, found)
    rows = np.sort(np.concatenate([fold.test for fold in folds]))
    kind_of_value = found[table.dataset, encoders[0], folds[0].number, sizes[0], 0].dtype
    predicted = np.empty((len(encoders), len(sizes), repeats, len(rows)), kind_of_value)
    fold_of = np.empty(len(rows), np.int64)
    constant = np.empty(len(rows), kind_of_value)
    for fold in folds:
        here = np.searchsorted(rows, fold.test)
        fold_of[here] = fold.number
        constant[here] = _best_constant(table, fold)
        for e, encoder in enumerate(encoders):
            for s, size in enumerate(sizes):
                for repeat in range(repeats):
                    place = (table.dataset, encoder, fold.number, size, repeat)
                    predicted[e, s, repeat, here] = found[place]
    numbers = {fold.number: f for f, fold in enumerate(folds)}
    n_train = np.zeros((len(sizes), len(folds)), np.int64)
    seeds = np.zeros((len(sizes), repeats, len(folds)), np.int64)
    for cell in cells:
        if cell.size in sizes and cell.repeat < repeats:
            s, f = sizes.index(cell.size), numbers[cell.fold]
            n_train[s, f] = len(cell.train)
            seeds[s, cell.repeat, f] = cell.seed
    return Predictions(
        dataset=table.dataset,
        metric=metric_of(table.kind, table.positive),
        encoders=encoders,
        baseline=baseline if baseline in encoders else None,
        sizes=sizes,
        fold_numbers=np.asarray(list(numbers), np.int64),
        n_train=n_train,
        seeds=seeds,
        rows=rows,
        fold=fold_of,
        group=table.groups[rows].astype(np.int64),
        truth=table.targets[rows],
        predicted=predicted,
        constant=constant,
        positive=table.positive,
        left_out=left_out,
        predictor=cells[0].predictor,
    )


def _complete(
    dataset: str,
    encoders: Sequence[str],
    folds: Sequence[Fold],
    cells: Sequence[Cell],
    found: Mapping[Place, NDArray[Any]],
) -> tuple[tuple[int, ...], int, tuple[str, ...]]:
    """Sizes and repeats for which every encoder and fold is there, and what is left out."""
    sizes = tuple(dict.fromkeys(cell.size for cell in cells))
    wanted = 1 + max(cell.repeat for cell in cells)

    def whole(size: int, repeat: int) -> bool:
        return all(
            (dataset, encoder, fold.number, size, repeat) in found
            for encoder in encoders
            for fold in folds
        )

    repeats = 0
    while repeats < wanted and all(whole(size, repeats) for size in sizes):
        repeats += 1
    if repeats == wanted:
        return sizes, repeats, ()
    if repeats:
        return sizes, repeats, (f"repeats {repeats + 1} to {wanted} did not fit into the budget",)
    kept = tuple(size for size in sizes if whole(size, 0))
    if not kept:
        raise UnfinishedError(
            f"{dataset}: not one size was finished for every encoder and fold; raise probe.budget "
            "and probe again: what is done is kept"
        )
    dropped = ", ".join(str(size) if size else "all" for size in sizes if size not in kept)
    left_out = [f"sizes {dropped} did not fit into the budget"]
    if wanted > 1:
        left_out.append(f"repeats 2 to {wanted} did not fit into the budget")
    return kept, 1, tuple(left_out)


def _best_constant(table: Features, fold: Fold) -> Any:
    """The best answer without looking: it may know the pool's targets, never the test's."""
    if table.positive is not None:
        return table.positive
    pool = table.targets[fold.pool]
    if table.kind is TaskKind.REGRESSION:
        return pool.mean(dtype=np.float64)
    return np.bincount(pool).argmax()
