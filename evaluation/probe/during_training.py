"""Probes during training: smaller studies within a time limit, and their table."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from datamodules.core.atomic import write_table
from datamodules.core.errors import ProbeError
from evaluation.config import ProbeConfig, Role
from evaluation.probe.features import extract
from evaluation.probe.predictors import headline_first
from evaluation.probe.sweep import sweep
from evaluation.run_files import JOURNAL
from evaluation.statistics.summary import DatasetStatistics, score_rows, summarise

if TYPE_CHECKING:
    from datamodules.base import PathologyDataModule
    from models.inference.frozen_encoder import FrozenEncoder

COURSE = "probe_course.csv"


def probe_within(
    seconds: float,
    encoders: Sequence[FrozenEncoder],
    datasets: Sequence[PathologyDataModule],
    settings: ProbeConfig,
    folder: Path,
    cache: Path,
) -> list[DatasetStatistics]:
    """Probe an encoder that is still training, with the first predictor of the final study.

    Features and predictions of the baselines are kept for the next probe and for the study at the
    end. Features of the first encoder are not: its weights will change.

    Args:
        seconds: time after which no further work is started.
        encoders: the one in training, then the baselines, the reference first.
        datasets: prepared unseen datasets.
        settings: of the study at the end.
        folder: of the run, with the study's journal.
        cache: folder of cached features.

    Raises:
        ProbeError: the time was too short for one comparison.
    """
    deadline = time.monotonic() + seconds
    role: Role = "all" if settings.role == "all" else "develop"
    chosen = replace(settings, predictors=headline_first(settings.predictors)[:1], role=role)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".features-", dir=folder) as temporary:
        caches = [Path(temporary), *[cache] * (len(encoders) - 1)]
        tables = [
            extract(encoder, data, place, chosen.batch_size, chosen.precision, deadline, role)
            for data in datasets
            for encoder, place in zip(encoders, caches, strict=True)
        ]
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProbeError("time ran out when all images were embedded")
        baseline = encoders[1].name if len(encoders) > 1 else None
        results = sweep(tables, replace(chosen, budget=left), folder / JOURNAL, baseline)
    return [summarise(result, chosen.bootstrap, chosen.seed) for result in results]


def keep_course(
    path: Path, epoch: int, step: int, studies: Sequence[DatasetStatistics]
) -> pd.DataFrame:
    """Add the probes after an epoch to a CSV file, which need not exist, and return their rows.

    `epoch` and `step` are numbers of finished epochs and of optimizer steps. Earlier rows of this
    or a later epoch are replaced: they are of a run that was interrupted.
    """
    rows = pd.DataFrame([row for study in studies for row in score_rows(study)])
    rows = rows.drop(columns="predictor")
    rows.insert(0, "epoch", epoch)
    rows.insert(1, "step", step)
    earlier = pd.read_csv(path) if path.is_file() else rows.iloc[:0]
    kept = earlier[earlier["epoch"] < epoch]
    write_table(path, pd.concat([kept, rows]) if len(kept) else rows)
    return rows
