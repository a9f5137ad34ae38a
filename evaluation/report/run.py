"""Reads a run's folder for a report. Every part may be missing."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from datamodules.core.errors import ProbeError
from evaluation import run_files
from evaluation.config import ProbeConfig
from evaluation.probe.projections import Projection, read_projections
from evaluation.statistics.predictions import read_predictions
from evaluation.statistics.summary import DatasetStatistics, summarise
from evaluation.statistics.training_log import TaskLog, TrainingLog, read_training_log


@dataclass(frozen=True)
class Run:
    """Contents of a run's folder; what is missing there is empty."""

    folder: Path
    provenance: dict[str, Any]  # of provenance.json
    config: str  # text of config.yaml
    training: TrainingLog | None
    final: dict[str, Any]  # of final_scores.json
    studies: tuple[DatasetStatistics, ...]  # probes, one per dataset and predictor
    robustness: tuple[dict[str, Any], ...]  # rows of robustness.csv
    projections: tuple[Projection, ...]
    panels: tuple[Path, ...]  # PNG files of predictions beside the truth
    counts: tuple[Path, ...]  # PNG files of confusion matrices and of precision and recall
    neighbours: tuple[Path, ...]  # PNG files of nearest neighbours

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @property
    def headline(self) -> tuple[DatasetStatistics, ...]:
        """The studies with the first predictor, which the report is about."""
        return tuple(s for s in self.studies if s.predictor == self.studies[0].predictor)

    @property
    def further(self) -> tuple[DatasetStatistics, ...]:
        """The studies with further predictors."""
        return tuple(s for s in self.studies if s.predictor != self.studies[0].predictor)

    @property
    def synthetic(self) -> bool | None:
        """Whether the tissue is synthetic; None if that was not recorded."""
        value = self.provenance.get("synthetic")
        return None if value is None else bool(value)

    @property
    def tasks(self) -> tuple[TaskLog, ...]:
        """Logs of the tasks of the training."""
        return self.training.tasks if self.training else ()


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        ProbeError: it is no folder, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise ProbeError(f"{folder}: no such run folder")
    config = folder / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    metrics, maps = folder / "metrics.csv", folder / run_files.EMBEDDINGS
    pictures = sorted((folder / run_files.PANELS).glob("*.png"))
    ends = (f"-{run_files.CONFUSION}", f"-{run_files.RECALL}")
    counts = [path for path in pictures if path.stem.endswith(ends)]
    try:
        return Run(
            folder=folder,
            provenance=_json(folder / "provenance.json"),
            config=text,
            training=read_training_log(metrics) if metrics.is_file() else None,
            final=_json(folder / run_files.FINAL),
            studies=_studies(folder / run_files.PREDICTIONS, text),
            robustness=_rows(folder / run_files.ROBUSTNESS),
            projections=tuple(read_projections(maps)) if maps.is_file() else (),
            panels=tuple(path for path in pictures if path not in counts),
            counts=tuple(counts),
            neighbours=tuple(sorted((folder / run_files.NEIGHBOURS).glob("*.png"))),
        )
    except (ValueError, yaml.YAMLError, TypeError) as error:
        raise ProbeError(f"{folder}: a file of the run is damaged ({error})") from error


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _rows(path: Path) -> tuple[dict[str, Any], ...]:
    return tuple(pd.read_csv(path).to_dict("records")) if path.is_file() else ()


def _studies(path: Path, config: str) -> tuple[DatasetStatistics, ...]:
    if not path.is_file():
        return ()
    settings = (yaml.safe_load(config) or {}).get("probe") or {}
    resamples = int(settings.get("bootstrap", ProbeConfig().bootstrap))
    seed = int(settings.get("seed", ProbeConfig().seed))
    return tuple(summarise(result, resamples, seed) for result in read_predictions(path))
