"""A probe study, from encoders and datasets to files in a folder."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from datamodules.base import PathologyDataModule
from datamodules.core.atomic import write_table
from datamodules.core.errors import ProbeError
from datamodules.reader import DatasetReader
from evaluation.config import ProbeConfig
from evaluation.figure_files import save_photograph
from evaluation.figures.neighbour_sheet import neighbour_sheets
from evaluation.probe.features import Features, extract, probe_target, rows_of_role
from evaluation.probe.folds import make_folds
from evaluation.probe.projections import Projection, project, project_together, write_projections
from evaluation.probe.robustness import centres_of, robustness_rows
from evaluation.probe.sweep import check_settings, sweep
from evaluation.run_files import (
    CACHE,
    EMBEDDINGS,
    JOURNAL,
    NEIGHBOURS,
    PREDICTIONS,
    PROBES,
    ROBUSTNESS,
)
from evaluation.statistics.predictions import Predictions, tidy, write_predictions
from models.inference.frozen_encoder import FrozenEncoder

log = logging.getLogger(__name__)


def run_study(
    encoders: Sequence[FrozenEncoder],
    datasets: Sequence[PathologyDataModule],
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
        folder: of the results; a study that was interrupted there is continued.
        cache: folder of cached features; `<folder>/features` if None.
        baseline: encoder to compare with; if None, ImageNet weights, else random ones.

    Returns:
        Predictions of each dataset and predictor, as in `probe_predictions.h5`.

    Raises:
        ProbeError: there is nothing to probe, or a dataset has no group-disjoint test set.
    """
    if not encoders or not datasets:
        raise ProbeError("nothing to probe: it takes an encoder and a dataset below data.unseen")
    folder.mkdir(parents=True, exist_ok=True)
    fixed = (settings.batch_size, settings.precision, None, settings.role)
    tables = [
        extract(encoder, data, cache or folder / CACHE, *fixed)
        for data in datasets
        for encoder in encoders
    ]
    results = sweep(tables, settings, folder / JOURNAL, baseline)
    write_predictions(folder / PREDICTIONS, results)
    write_table(folder / PROBES, tidy(results))
    _write_robustness(tables, datasets, settings, folder / ROBUSTNESS)
    if settings.map_points:
        log.info("embedding maps and nearest neighbours")
        names = {tables[0].encoder, results[0].baseline}
        shown = [t for t in tables if t.encoder in names and t.dense is None]
        write_projections(folder / EMBEDDINGS, _maps(shown, settings))
        _write_neighbours(shown, datasets, settings, folder / NEIGHBOURS)
    return results


def _write_robustness(
    tables: Sequence[Features],
    datasets: Sequence[PathologyDataModule],
    settings: ProbeConfig,
    path: Path,
) -> None:
    """Write the robustness index of each dataset with a pattern for its centres."""
    rows: list[dict[str, Any]] = []
    for data in datasets:
        of_dataset = [table for table in tables if table.dataset == data.name]
        if data.config.centre:
            centres = centres_of(data)[of_dataset[0].rows]
            drawn = settings.bootstrap, settings.seed
            rows += robustness_rows(of_dataset, centres, *drawn, settings.robustness_k)
    path.unlink(missing_ok=True)
    if rows:
        write_table(path, pd.DataFrame(rows))


def check_recipe(unseen: Sequence[DatasetReader], settings: ProbeConfig) -> None:
    """Check without any data that datasets can be probed with their settings.

    Raises:
        ProbeError: the settings make no study, or a dataset has neither published test images nor
            configured folds.
    """
    check_settings(settings)
    for data in unseen:
        known = data.published_splits
        if known and not data.config.folds and not {"test", "val"} & set(known):
            raise ProbeError(
                f"data.unseen.{data.name}.folds=0: its publisher names no test images; set it, for "
                "example to 5, for grouped folds"
            )


def check_probe(data: DatasetReader, settings: ProbeConfig) -> None:
    """Check before a long training run that a dataset can be probed.

    Raises:
        ProbeError: no suitable task, no group-disjoint test set, or unusable settings.
    """
    check_settings(settings)
    store, folds = data.store, data.config.folds
    task, targets = probe_target(data)
    rows = rows_of_role(data, settings.role)
    arrays = (targets[rows], store.group[rows], store.split[rows])
    make_folds(data.name, task.kind, *arrays, folds, settings.seed)
    if data.config.centre:
        centres_of(data)


def _maps(tables: Sequence[Features], settings: ProbeConfig) -> list[Projection]:
    """Map each dataset by itself, and all of them together."""
    seed, points = settings.seed, settings.map_points
    maps = [project(table, seed, points) for table in tables]
    encoders = dict.fromkeys(table.encoder for table in tables)
    if len(maps) > len(encoders):  # with one dataset, a joint map would show one colour
        for encoder in encoders:
            of_encoder = [table for table in tables if table.encoder == encoder]
            maps.append(project_together(of_encoder, seed, points))
    return maps


def _write_neighbours(
    tables: Sequence[Features],
    datasets: Sequence[PathologyDataModule],
    settings: ProbeConfig,
    folder: Path,
) -> None:
    for old in folder.glob("*.png"):
        old.unlink()
    for data in datasets if settings.neighbours else ():
        of_dataset = [table for table in tables if table.dataset == data.name]
        for sheet in neighbour_sheets(of_dataset, data.store, settings) if of_dataset else ():
            save_photograph(sheet, folder)
