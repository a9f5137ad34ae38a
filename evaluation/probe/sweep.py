"""The sweep: a predictor for every (dataset, encoder, fold, size, repeat), in parallel.

The order of the work, the number of processes and interruptions do not change the result: the rows
and the seed of each predictor depend only on its place in the study.
"""

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
from datamodules.core.progress import Work
from evaluation.config import ProbeConfig
from evaluation.probe.collect import collect
from evaluation.probe.dense_jobs import run_dense_job
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
from evaluation.probe.jobs import STREAMING, Job, Journal, Place, connected, run_job
from evaluation.probe.predictors import check_predictors, headline_first
from evaluation.statistics.predictions import Predictions

log = logging.getLogger(__name__)

SLICE = 256  # jobs handed at a time to a backend that returns results together


def sweep(
    tables: Sequence[Features], settings: ProbeConfig, journal: Path, baseline: str | None = None
) -> list[Predictions]:
    """Probe every table of features; jobs that the journal holds are not run again.

    Args:
        tables: one per (dataset, encoder); each dataset needs the same encoders.
        settings: sizes, repeats, predictors, trees, seed, processes, budget.
        journal: file of finished jobs.
        baseline: encoder that the others are compared with; `find_baseline` chooses if None.

    Returns:
        One entry per dataset and predictor, in the order of `tables`, the forest first; see
        `collect` for what a budget cut off.

    Raises:
        ProbeError: no group-disjoint test set, unlike encoders, an unknown predictor, or a budget
            too short for one comparison.
    """
    datasets = _check(tables, settings)
    folds = {
        name: make_folds(name, t.kind, t.targets, t.groups, t.split, t.folds, settings.seed)
        for name, t in datasets.items()
    }
    plans = {name: plan(table, folds[name], settings) for name, table in datasets.items()}
    jobs = [replace(job, encoder=table.encoder) for table in tables for job in plans[table.dataset]]
    by_name = {(table.dataset, table.encoder): table for table in tables}
    keys = {job.place: job.key(by_name[job.dataset, job.encoder], settings.trees) for job in jobs}
    done = Journal(journal)
    missing = [job for job in jobs if keys[job.place] not in done]
    log.info("%d probes, %d of them already done", len(jobs), len(jobs) - len(missing))
    with Work("probing", "probes", len(missing)) as work:
        for place, predicted in _run(missing, by_name, settings):
            done.add(keys[place], predicted)
            work.advance()
    finished = {place: done[key] for place, key in keys.items() if key in done}
    baseline = baseline or find_baseline([table.encoder for table in tables])
    results: list[Predictions] = []
    for name in datasets:
        of_dataset = [table for table in tables if table.dataset == name]
        chosen = [job for job in jobs if job.dataset == name]
        results += collect(of_dataset, folds[name], chosen, finished, baseline)
    return results


def plan(table: Features, folds: Sequence[Fold], settings: ProbeConfig) -> list[Job]:
    """Return all jobs of one dataset; apart from its name, nothing depends on the encoder."""
    sizes = subset_sizes(settings.sizes, folds)
    jobs = []
    for fold in folds:
        strata = strata_of(table.kind, table.targets[fold.pool])
        for repeat in range(settings.repeats):
            seed = seed_from(settings.seed, table.dataset, fold.number, repeat)
            order = nested_order(strata, table.groups[fold.pool], seed)
            for size in sizes:
                train = fold.pool[subset(order, size)] if size else fold.pool
                for name in headline_first(settings.predictors):
                    place = (table.dataset, table.encoder, name, fold.number, size, repeat)
                    jobs.append(Job(*place, train, fold.test, seed_from(seed, name, size)))
    return jobs


def find_baseline(encoders: Sequence[str]) -> str | None:
    """Return the encoder to compare with: ImageNet weights, else random ones, else None."""
    ranked = [[n for n in encoders if n.startswith(prefix)] for prefix in ("imagenet", "random")]
    return next((name for names in ranked for name in names), None)


def check_settings(settings: ProbeConfig) -> None:
    """Check the settings that can be checked without features.

    Raises:
        ProbeError: an unknown predictor, or sizes or repeats that do not make a study.
    """
    check_predictors(settings.predictors)
    if not settings.sizes or min(settings.sizes) < 0 or settings.repeats < 1:
        raise ProbeError(
            f"probe.sizes={settings.sizes}, probe.repeats={settings.repeats}: sizes must be 0 "
            "(all) or more, repeats 1 or more"
        )


def _check(tables: Sequence[Features], settings: ProbeConfig) -> dict[str, Features]:
    """Return the first table of each dataset if all tables fit together."""
    check_settings(settings)
    if not tables:
        raise ProbeError("nothing to probe: name a dataset below data.unseen")
    first: dict[str, Features] = {}
    encoders: dict[str, list[str]] = {}
    for table in tables:
        one = first.setdefault(table.dataset, table)
        encoders.setdefault(table.dataset, []).append(table.encoder)
        same = (np.array_equal(getattr(one, n), getattr(table, n)) for n in ("targets", "groups"))
        if not all(same) or one.folds != table.folds:
            raise ProbeError(f"{table.dataset}: encoders saw different images; delete the cache")
    sets = {tuple(sorted(names)) for names in encoders.values()}
    if len(sets) > 1 or any(len(set(names)) < len(names) for names in sets):
        raise ProbeError(f"every dataset needs each encoder once, not {sorted(sets)}")
    return first


def _run(
    jobs: Sequence[Job], tables: Mapping[tuple[str, str], Features], settings: ProbeConfig
) -> Iterator[tuple[Place, NDArray[Any]]]:
    """Yield places and predictions of finished jobs, in any order."""
    deadline = time.monotonic() + settings.budget if settings.budget > 0 else None
    width = {name: table.features.shape[-1] for name, table in tables.items()}
    if deadline is None:  # the longest first, so that no process waits for the last one
        ordered = sorted(jobs, key=lambda j: -len(j.train) * width[j.dataset, j.encoder])
    else:  # whole repeats, and small sizes first: what is done early is a smaller study
        rank = headline_first(settings.predictors).index
        ordered = sorted(jobs, key=lambda j: (rank(j.predictor), j.repeat, len(j.train)))

    def due(chosen: Sequence[Job]) -> Iterator[Any]:
        for job in chosen:
            if deadline is not None and time.monotonic() > deadline:
                return
            table = tables[job.dataset, job.encoder]
            if table.dense is not None:
                yield delayed(run_dense_job)(job, table.dense, table.features, settings.trees)
            else:
                parts = table.kind, table.features, table.targets
                yield delayed(run_job)(job, *parts, settings.trees)

    streams = settings.backend in STREAMING
    step = max(len(ordered), 1) if streams else SLICE
    with connected(settings.backend):
        order = "generator_unordered" if streams else "list"
        parallel = Parallel(settings.jobs or -1, batch_size=1, return_as=order)
        for start in range(0, len(ordered), step):
            yield from parallel(due(ordered[start : start + step]))
