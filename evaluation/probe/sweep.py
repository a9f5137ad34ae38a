"""The sweep: a predictor for every (dataset, encoder, fold, size, repeat), in parallel.

The order of the work, the number of processes and an interruption change nothing in the result:
each predictor's rows and seed follow from its place in the study alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from datamodules.core.errors import ProbeError
from evaluation.config import ProbeConfig
from evaluation.probe.collect import UnfinishedError, assemble
from evaluation.probe.features import Features
from evaluation.probe.folds import (
    Fold,
    make_folds,
    nested_order,
    seed_from,
    strata_of,
    subset,
    subset_sizes,
)
from evaluation.probe.jobs import STREAMING, Cell, connected, run_cell
from evaluation.probe.journal import Journal
from evaluation.probe.predictors import check_predictors, headline_first
from evaluation.statistics.predictions import Predictions

log = logging.getLogger(__name__)


def sweep(
    tables: Sequence[Features],
    settings: ProbeConfig,
    journal: Path,
    baseline: str | None = None,
) -> list[Predictions]:
    """Probe every table of features.

    Args:
        tables: one per (dataset, encoder); each dataset needs the same encoders.
        settings: sizes, repeats, predictors, trees, seed, processes, budget.
        journal: file of finished cells; a sweep that finds its own there goes on from it.
        baseline: encoder that the others are compared with; `find_baseline` chooses if None.

    Returns:
        One entry per dataset and predictor, in the order of `tables`, the forest first.
        A further predictor that a budget cut off is left out, and the first one's entry says so.

    Raises:
        ProbeError: no group-disjoint test set, unlike encoders, an unknown predictor, or a budget
            too short for one comparison.
    """
    by_place = {(table.dataset, table.encoder): table for table in tables}
    datasets = _check(tables, settings)
    folds = {name: _folds_of(table, settings.seed) for name, table in datasets.items()}
    plans = {name: plan(table, folds[name], settings) for name, table in datasets.items()}
    cells = [
        replace(cell, encoder=table.encoder) for table in tables for cell in plans[table.dataset]
    ]
    done = Journal(journal)
    keys = {
        id(cell): cell.key(by_place[cell.dataset, cell.encoder], settings.trees) for cell in cells
    }
    missing = [cell for cell in cells if keys[id(cell)] not in done]
    log.info("%d cells, %d of them already done", len(cells), len(cells) - len(missing))
    for cell, predicted in _run(missing, by_place, settings):
        done.add(keys[id(cell)], predicted)
    finished = {id(cell): done[keys[id(cell)]] for cell in cells if keys[id(cell)] in done}
    chosen = baseline or find_baseline([table.encoder for table in tables])
    results: list[Predictions] = []
    for name in datasets:
        mine = [cell for cell in cells if cell.dataset == name]
        same = [table for table in tables if table.dataset == name]
        results += _assemble(same, folds[name], mine, finished, chosen, settings.predictors)
    return results


def plan(table: Features, folds: Sequence[Fold], settings: ProbeConfig) -> list[Cell]:
    """All cells of one dataset. Only `table.encoder` names the encoder: nothing depends on it."""
    strata = strata_of(table.kind, table.targets)
    sizes = subset_sizes(settings.sizes, folds)
    cells = []
    for fold in folds:
        for repeat in range(settings.repeats):
            seed = seed_from(settings.seed, table.dataset, fold.number, repeat)
            order = nested_order(strata[fold.pool], table.groups[fold.pool], seed)
            for size in sizes:
                train = fold.pool[subset(order, size)] if size else fold.pool
                for predictor in headline_first(settings.predictors):
                    cells.append(
                        Cell(
                            table.dataset,
                            table.encoder,
                            fold.number,
                            size,
                            repeat,
                            train=train,
                            test=fold.test,
                            seed=seed_from(seed, predictor, size),
                            predictor=predictor,
                        )
                    )
    return cells


def find_baseline(encoders: Sequence[str]) -> str | None:
    """The encoder to compare with: ImageNet weights, else random ones, else none."""
    for prefix in ("imagenet", "random"):
        for name in encoders:
            if name.startswith(prefix):
                return name
    return None


def _assemble(
    tables: Sequence[Features],
    folds: Sequence[Fold],
    cells: Sequence[Cell],
    finished: Mapping[int, NDArray[Any]],
    baseline: str | None,
    predictors: Sequence[str],
) -> list[Predictions]:
    """The results of one dataset, one per predictor."""
    results: list[Predictions] = []
    for predictor in headline_first(predictors):
        mine = [cell for cell in cells if cell.predictor == predictor]
        found = {
            (cell.dataset, cell.encoder, cell.fold, cell.size, cell.repeat): finished[id(cell)]
            for cell in mine
            if id(cell) in finished
        }
        try:
            results.append(assemble(tables, folds, mine, found, baseline))
        except UnfinishedError:
            if not results:
                raise
            missing = f"predictor {predictor} did not fit into the budget"
            results[0] = replace(results[0], left_out=(*results[0].left_out, missing))
    return results


def check_settings(settings: ProbeConfig) -> None:
    """Check what can be checked before there are features.

    Raises:
        ProbeError: an unknown predictor, or no sizes or repeats that make a study.
    """
    check_predictors(settings.predictors)
    if not settings.sizes or min(settings.sizes) < 0 or settings.repeats < 1:
        raise ProbeError(
            f"probe.sizes={settings.sizes}, probe.repeats={settings.repeats}: sizes must be 0 "
            "(all) or more, repeats 1 or more"
        )


def _check(tables: Sequence[Features], settings: ProbeConfig) -> dict[str, Features]:
    """The first table of each dataset, once all fit together."""
    check_settings(settings)
    if not tables:
        raise ProbeError("nothing to probe: name a dataset below data.unseen")
    first: dict[str, Features] = {}
    encoders: dict[str, list[str]] = {}
    for table in tables:
        one = first.setdefault(table.dataset, table)
        encoders.setdefault(table.dataset, []).append(table.encoder)
        same = np.array_equal(one.targets, table.targets) and np.array_equal(
            one.groups, table.groups
        )
        if not same or one.folds != table.folds:
            raise ProbeError(f"{table.dataset}: encoders saw different images; delete the cache")
    sets = {tuple(sorted(names)) for names in encoders.values()}
    if len(sets) > 1 or any(len(set(names)) < len(names) for names in sets):
        raise ProbeError(f"every dataset needs each encoder once, found {sorted(sets)}")
    return first


def _folds_of(table: Features, seed: int) -> list[Fold]:
    return make_folds(
        table.dataset, table.kind, table.targets, table.groups, table.split, table.folds, seed
    )


def _run(
    cells: Sequence[Cell], tables: dict[tuple[str, str], Features], settings: ProbeConfig
) -> Iterator[tuple[Cell, NDArray[Any]]]:
    """Finished cells, in whatever order they end."""
    deadline = time.monotonic() + settings.budget if settings.budget > 0 else None
    width = {name: table.features.shape[1] for name, table in tables.items()}
    if deadline is None:  # the longest first, so that no process waits for the last one
        ordered = sorted(
            cells, key=lambda c: len(c.train) * width[c.dataset, c.encoder], reverse=True
        )
    else:  # whole repeats, and small sizes first: what is done early is a smaller study
        rank = headline_first(settings.predictors).index
        ordered = sorted(cells, key=lambda c: (rank(c.predictor), c.repeat, len(c.train)))

    def due(some: Sequence[Cell]) -> Iterator[Any]:
        for cell in some:
            if deadline is not None and time.monotonic() > deadline:
                return
            table = tables[cell.dataset, cell.encoder]
            yield delayed(_numbered)(
                positions[id(cell)], cell, table.kind, table.features, table.targets, settings.trees
            )

    positions = {id(cell): position for position, cell in enumerate(ordered)}
    streams = settings.backend in STREAMING
    step = len(ordered) if streams else 256
    with connected(settings.backend):
        parallel = Parallel(
            n_jobs=settings.jobs,
            batch_size=1,
            return_as="generator_unordered" if streams else "list",
        )
        for start in range(0, len(ordered), max(step, 1)):
            for position, predicted in parallel(due(ordered[start : start + step])):
                yield ordered[position], predicted


def _numbered(position: int, *arguments: Any) -> tuple[int, NDArray[Any]]:
    """`run_cell` with the cell's number, because results come in any order."""
    return position, run_cell(*arguments)
