"""A probe study from encoders and datasets to files in a folder.

probes.csv               one row per predictor, and those of the constant one
probe_predictions.h5     every test prediction, which intervals are computed from
probe_journal.jsonl      what is finished; probing again goes on from it
embeddings.json          two-dimensional maps of the features
neighbours/              sheets of nearest neighbours
features/                cached features
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from datamodules.core.atomic import write_table
from datamodules.core.errors import ProbeError
from datamodules.reader import DatasetReader
from evaluation.config import ProbeConfig
from evaluation.figures.neighbour_sheet import write_sheets
from evaluation.probe.features import Features, ImageEncoder, ProbeData, extract, probe_task
from evaluation.probe.folds import make_folds
from evaluation.probe.projections import Projection, project, project_together, write_projections
from evaluation.probe.sweep import check_settings, sweep
from evaluation.run_files import CACHE, EMBEDDINGS, JOURNAL, NEIGHBOURS, PREDICTIONS, PROBES
from evaluation.statistics.predictions import Predictions, tidy, write_predictions

log = logging.getLogger(__name__)


def run_study(
    encoders: Sequence[ImageEncoder],
    datasets: Sequence[ProbeData],
    settings: ProbeConfig,
    folder: Path,
    cache: Path | None = None,
    baseline: str | None = None,
) -> list[Predictions]:
    """Embed, probe and write the results.

    Args:
        encoders: frozen encoders with different names; the study's own first.
        datasets: prepared unseen datasets.
        settings: of the probes.
        folder: where results go; a study that was interrupted there is continued.
        cache: folder of cached features; `<folder>/features` if None.
        baseline: encoder to compare with; ImageNet weights if None, else random ones.

    Returns:
        Predictions of each dataset and predictor, as `probe_predictions.h5` keeps them.

    Raises:
        ProbeError: nothing to probe, or a dataset without a group-disjoint test set.
    """
    if not encoders or not datasets:
        raise ProbeError("nothing to probe: it takes an encoder and a dataset below data.unseen")
    folder.mkdir(parents=True, exist_ok=True)
    store = cache or folder / CACHE
    tables = [
        _features(encoder, data, settings, store) for data in datasets for encoder in encoders
    ]
    results = sweep(tables, settings, folder / JOURNAL, baseline)
    write_predictions(folder / PREDICTIONS, results)
    write_table(folder / PROBES, tidy(results))
    if settings.map_points:
        shown = {tables[0].encoder, results[0].baseline}
        show = [table for table in tables if table.encoder in shown]
        log.info("embedding maps and nearest neighbours")
        write_projections(folder / EMBEDDINGS, _maps(show, settings))
        _neighbours(show, datasets, settings, folder / NEIGHBOURS)
    return results


def check_probe(data: DatasetReader, settings: ProbeConfig) -> None:
    """Find out before a long training run whether a dataset can be probed on.

    Raises:
        ProbeError: no fitting task, no test set without groups of the training pool, or settings
            that make no study.
    """
    check_settings(settings)
    task = probe_task(data.name, data.store.tasks)
    store, folds = data.store, data.config.folds
    targets = store.target(task.name)
    make_folds(data.name, task.kind, targets, store.group, store.split, folds, settings.seed)


def _features(
    encoder: ImageEncoder, data: ProbeData, settings: ProbeConfig, cache: Path
) -> Features:
    task = probe_task(data.name, data.store.tasks)
    return extract(encoder, data, task, cache, settings.batch_size, settings.precision)


def _maps(tables: Sequence[Features], settings: ProbeConfig) -> list[Projection]:
    """Each dataset by itself, and all of them in one map."""
    seed, points = settings.seed, settings.map_points
    single = [project(table, seed, points) for table in tables]
    encoders = dict.fromkeys(table.encoder for table in tables)
    if len(single) == len(encoders):  # one dataset: a joint map would show one colour
        return single
    joint = [
        project_together([table for table in tables if table.encoder == encoder], seed, points)
        for encoder in encoders
    ]
    return [*single, *joint]


def _neighbours(
    tables: Sequence[Features],
    datasets: Sequence[ProbeData],
    settings: ProbeConfig,
    folder: Path,
) -> None:
    for old in folder.glob("*.png"):
        old.unlink()
    for data in datasets if settings.neighbours else ():
        mine = [table for table in tables if table.dataset == data.name]
        write_sheets(mine, data.store, settings, folder)
