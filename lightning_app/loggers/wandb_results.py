"""What W&B gets beside the numbers of training: probes, curves, encoder and report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from pytorch_lightning.loggers import Logger, WandbLogger

from evaluation.config import FOREST
from evaluation.report.report import NUMBERS, REPORT
from evaluation.report.sections import OVERVIEW
from evaluation.run_files import NEIGHBOURS, PROBES
from lightning_app.publish.model_card import CARD_FILE
from models.inference.export import FACTS_FILE, WEIGHTS_FILE

_INTERVAL = ("value", "low", "high")
SCORES = (
    "dataset",
    "encoder",
    "predictor",
    "labels",
    *_INTERVAL,
    "gain",
    "gain_low",
    "gain_high",
    "metric",
)
"""Columns of the table of scores; a gain is the difference to the baseline."""


def log_probes(loggers: Iterable[Logger], folder: Path) -> None:
    """Log a finished probe study: tables, charts, pictures, and the scores as the summary.

    Args:
        loggers: of the run; those that are not W&B's are passed over.
        folder: of the run, with probes.csv, its report and pictures.
    """
    studies = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))["probes"]
    for logger in wandb_loggers(loggers):
        run = logger.experiment
        scores = wandb.Table(columns=list(SCORES), data=[r for s in studies for r in _rows(s)])
        media: dict[str, Any] = {
            "probes": wandb.Table(dataframe=pd.read_csv(folder / PROBES)),
            "probe_scores": scores,
        }
        media |= {f"learning_curves/{_name(study)}": _chart(study) for study in studies}
        media |= _pictures(folder)
        run.log(media)
        for study in studies:
            for row in _rows(study):
                _, encoder, _, labels, value, *_ = row
                run.summary[f"probe/{_name(study)}/{encoder}/{labels:g}"] = value


def _name(study: Mapping[str, Any]) -> str:
    """A study's name in the dashboard; the headline's is the dataset's."""
    dataset, predictor = str(study["dataset"]), str(study["predictor"])
    return dataset if predictor == FOREST else f"{dataset}-{predictor}"


def _rows(study: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """One row per encoder and size, as `SCORES` names its columns."""
    gains = {one["encoder"]: one["differences"] for one in study["comparisons"]}
    rows: list[tuple[Any, ...]] = []
    for curve in study["curves"]:
        encoder = curve["encoder"]
        for s, (labels, score) in enumerate(zip(study["labels"], curve["scores"], strict=True)):
            gain = gains[encoder][s] if encoder in gains else dict.fromkeys(_INTERVAL)
            numbers = [part[key] for part in (score, gain) for key in _INTERVAL]
            names = (study["dataset"], encoder, study["predictor"], labels)
            rows.append((*names, *numbers, study["metric"]["name"]))
    return rows


def _chart(study: Mapping[str, Any]) -> Any:
    """The learning curves of a study as a chart to hover over."""
    return wandb.plot.line_series(
        xs=study["labels"],
        ys=[[score["value"] for score in curve["scores"]] for curve in study["curves"]],
        keys=[curve["encoder"] for curve in study["curves"]],
        title=f"{_name(study)}: {study['metric']['title']}",
        xname="labelled images",
    )


def _pictures(folder: Path) -> dict[str, Any]:
    """Learning curves with intervals, maps and nearest neighbours."""
    found = {"curves/all": folder / f"{OVERVIEW}.png"}
    for path in sorted((folder / "figures").glob("*.png")):
        for start, part in (("learning-curve-", "curves"), ("map-", "maps")):
            if path.stem.startswith(start):
                found[f"{part}/{path.stem.removeprefix(start)}"] = path
    found |= {f"neighbours/{p.stem}": p for p in sorted((folder / NEIGHBOURS).glob("*.png"))}
    return {name: wandb.Image(str(path)) for name, path in found.items()}


def log_files(loggers: Iterable[Logger], folder: Path) -> None:
    """Log encoder with its model card, and report with its numbers, as artifacts."""
    files = {
        ("encoder", "model"): (WEIGHTS_FILE, FACTS_FILE, CARD_FILE),
        ("report", "report"): (REPORT, NUMBERS, PROBES, f"{OVERVIEW}.png", f"{OVERVIEW}.svg"),
    }
    for logger in wandb_loggers(loggers):
        for (name, kind), members in files.items():
            present = [folder / member for member in members if (folder / member).is_file()]
            if folder / members[0] in present:
                artifact = wandb.Artifact(name, type=kind, metadata={"run": folder.resolve().name})
                for path in present:
                    artifact.add_file(str(path))
                logger.experiment.log_artifact(artifact)


def finish(loggers: Iterable[Logger]) -> None:
    """Close the W&B runs, so that their files are complete when the program says so."""
    for logger in wandb_loggers(loggers):
        logger.experiment.finish()


def wandb_loggers(loggers: Iterable[Logger]) -> list[WandbLogger]:
    """The loggers that are W&B's."""
    return [logger for logger in loggers if isinstance(logger, WandbLogger)]
