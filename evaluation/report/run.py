"""A run's folder, read for a report. Every part may be missing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from datamodules.core.errors import ProbeError
from evaluation.figures.training_log import TrainingLog, read_training_log
from evaluation.probe.projections import (
    Projection,
    read_projections,
)
from evaluation.run_files import CONFUSION, EMBEDDINGS, FINAL, NEIGHBOURS, PREDICTIONS, RECALL
from evaluation.statistics.predictions import Predictions, read_predictions
from evaluation.statistics.summary import DatasetStatistics, summarise


@dataclass(frozen=True)
class Study:
    """One dataset of the probes under one predictor.

    Attributes:
        statistics: all its numbers.
        baseline: name of the baseline encoder, if there is one.
        protocol: digest of the test images, targets, folds and label counts; scores of two runs
            can be compared where it is the same.
        seeds: of the predictors, by size, repeat and fold.
    """

    statistics: DatasetStatistics
    baseline: str | None
    protocol: str
    seeds: list[list[list[int]]]


@dataclass(frozen=True)
class Run:
    """Everything that a run's folder says.

    Attributes:
        folder: where it lies.
        provenance: of provenance.json; empty without it.
        config: text of config.yaml; empty without it.
        training: course of the training, where there was one.
        final: scores of the final weights and the split of each dataset, of final_scores.json;
            empty without it.
        studies: probes, one per dataset and predictor.
        projections: embedding maps.
        panels: PNG files of predictions beside the truth.
        tallies: PNG files of what validation counted: confusions, precision and recall.
        neighbours: PNG files of nearest neighbours.
    """

    folder: Path
    provenance: dict[str, Any]
    config: str
    training: TrainingLog | None
    final: dict[str, Any]
    studies: tuple[Study, ...]
    projections: tuple[Projection, ...]
    panels: tuple[Path, ...]
    tallies: tuple[Path, ...]
    neighbours: tuple[Path, ...]

    @property
    def headline(self) -> tuple[Study, ...]:
        """The studies with the first predictor, which a report is about."""
        return tuple(s for s in self.studies if s.statistics.predictor == self._predictor)

    @property
    def beside(self) -> tuple[Study, ...]:
        """The studies with further predictors."""
        return tuple(s for s in self.studies if s.statistics.predictor != self._predictor)

    @property
    def _predictor(self) -> str:
        return self.studies[0].statistics.predictor if self.studies else ""

    @property
    def synthetic(self) -> bool | None:
        """Whether the tissue was drawn by a program; None where nobody wrote it down."""
        value = self.provenance.get("synthetic")
        return None if value is None else bool(value)


RESAMPLES = 2000
"""Of the bootstrap, where the configuration does not say."""


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        ProbeError: it is no folder, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise ProbeError(f"{folder}: no such run folder")
    config = folder / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    metrics, maps = folder / "metrics.csv", folder / EMBEDDINGS
    pictures = sorted((folder / "panels").glob("*.png"))
    tallies = tuple(p for p in pictures if p.stem.endswith((f"-{CONFUSION}", f"-{RECALL}")))
    try:
        return Run(
            folder=folder,
            provenance=_json(folder / "provenance.json"),
            config=text,
            training=read_training_log(metrics) if metrics.is_file() else None,
            final=_json(folder / FINAL),
            studies=_studies(folder / PREDICTIONS, text),
            projections=tuple(read_projections(maps)) if maps.is_file() else (),
            panels=tuple(path for path in pictures if path not in tallies),
            tallies=tallies,
            neighbours=tuple(sorted((folder / NEIGHBOURS).glob("*.png"))),
        )
    except (json.JSONDecodeError, yaml.YAMLError, TypeError) as error:
        raise ProbeError(f"{folder}: a file of the run is damaged ({error})") from error


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _studies(path: Path, config: str) -> tuple[Study, ...]:
    if not path.is_file():
        return ()
    settings = (yaml.safe_load(config) or {}).get("probe") or {}
    resamples, seed = int(settings.get("bootstrap", RESAMPLES)), int(settings.get("seed", 0))
    return tuple(
        Study(
            summarise(result, resamples, seed),
            result.baseline,
            _protocol(result),
            result.seeds.tolist(),
        )
        for result in read_predictions(path)
    )


def _protocol(result: Predictions) -> str:
    digest = hashlib.sha256(f"{result.dataset} {result.metric.name} {result.sizes}".encode())
    for array in (result.rows, result.fold, result.group, result.truth, result.n_train):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]
