"""Probes in the course of a training: smaller studies within a time limit, and their table."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from datamodules.core.atomic import write_table
from datamodules.core.errors import ProbeError
from evaluation.config import ProbeConfig
from evaluation.probe.features import ImageEncoder, ProbeData, extract, probe_task
from evaluation.probe.predictors import headline_first
from evaluation.probe.sweep import sweep
from evaluation.run_files import JOURNAL
from evaluation.statistics.summary import DatasetStatistics, summarise

COURSE = "probe_course.csv"
COLUMNS = [
    "epoch",
    "step",
    "dataset",
    "encoder",
    "size",
    "n_train",
    "repeats",
    "metric",
    "value",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
]


def probe_within(
    seconds: float,
    encoders: Sequence[ImageEncoder],
    datasets: Sequence[ProbeData],
    settings: ProbeConfig,
    folder: Path,
    cache: Path,
) -> list[DatasetStatistics]:
    """Probe an encoder that is still learning, in a limited time, with the study's headline.

    What the baselines need is kept for the next time and for the study at the end. Features of
    the first encoder are not: its weights will never be the same again.

    Args:
        seconds: after which nothing further is started.
        encoders: the one that is still learning; then the baselines, the reference first.
        datasets: prepared unseen datasets.
        settings: of the study at the end.
        folder: of the run, with the study's journal.
        cache: folder of cached features.

    Raises:
        ProbeError: the time was too short for one comparison.
    """
    deadline = time.monotonic() + seconds
    chosen = replace(settings, predictors=headline_first(settings.predictors)[:1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".features-", dir=folder) as passing:
        tables = [
            extract(
                encoder,
                data,
                probe_task(data.name, data.store.tasks),
                cache if position else Path(passing),
                chosen.batch_size,
                chosen.precision,
                deadline,
            )
            for data in datasets
            for position, encoder in enumerate(encoders)
        ]
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProbeError("the time was over when all images were embedded")
        baseline = encoders[1].name if len(encoders) > 1 else None
        results = sweep(tables, replace(chosen, budget=left), folder / JOURNAL, baseline)
    return [summarise(result, chosen.bootstrap, chosen.seed) for result in results]


def keep_course(
    path: Path, epoch: int, step: int, studies: Sequence[DatasetStatistics]
) -> pd.DataFrame:
    """Add the probes after an epoch to a table on disk, in place of what it says of the epoch.

    Args:
        path: CSV file; it need not exist.
        epoch: finished epochs.
        step: optimizer steps done.
        studies: one per dataset.

    Returns:
        The rows of this epoch. A difference stands where there is a baseline to take it to.
    """
    rows = pd.DataFrame(
        [row for study in studies for row in _rows(epoch, step, study)], columns=COLUMNS
    )
    earlier = pd.read_csv(path) if path.is_file() else rows.iloc[:0]
    kept = earlier[earlier["epoch"] < epoch]  # later ones are of a run that was interrupted
    write_table(path, pd.concat([kept, rows]) if len(kept) else rows)
    return rows


def _rows(epoch: int, step: int, study: DatasetStatistics) -> list[tuple[object, ...]]:
    differences = {one.encoder: one.differences for one in study.comparisons}
    rows: list[tuple[object, ...]] = []
    for curve in study.curves:
        for s, (size, labels, score) in enumerate(
            zip(study.sizes, study.labels, curve.scores, strict=True)
        ):
            facts = (epoch, step, study.dataset, curve.encoder, size, labels, study.repeats)
            gain: tuple[float | None, ...] = (None, None, None)
            if curve.encoder in differences:
                found = differences[curve.encoder][s]
                gain = (found.value, found.low, found.high)
            values = (score.value, score.low, score.high)
            rows.append((*facts, study.metric.name, *values, *gain))
    return rows
