"""Results in W&B beside the numbers of training: probes, curves, encoder and report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from pytorch_lightning.loggers import Logger, WandbLogger

from evaluation.config import FOREST
from evaluation.report.report import read_statistics
from evaluation.run_files import FIGURES, NEIGHBOURS, NUMBERS, OVERVIEW, PROBES, REPORT
from evaluation.statistics.summary import DatasetStatistics, score_rows
from lightning_app.publish.model_card import CARD_FILE
from models.inference.export import FACTS_FILE, WEIGHTS_FILE


def log_probes(loggers: Iterable[Logger], folder: Path) -> None:
    """Log a finished probe study: tables, charts, pictures, and the scores as the summary.

    Args:
        loggers: of the run; only those of W&B are used.
        folder: of the run, with probes.csv, its report and pictures.
    """
    studies = read_statistics(folder)
    for logger in wandb_loggers(loggers):
        run = logger.experiment
        media: dict[str, Any] = {
            "probes": wandb.Table(dataframe=pd.read_csv(folder / PROBES)),
            "probe_scores": scores_table(studies),
        }
        media |= {f"learning_curves/{_name(study)}": _chart(study) for study in studies}
        media |= _pictures(folder)
        run.log(media)
        for study in studies:
            for row in score_rows(study):
                key = f"probe/{_name(study)}/{row['encoder']}/{row['n_train']:g}"
                run.summary[key] = row["value"]


def scores_table(studies: Iterable[DatasetStatistics]) -> wandb.Table:
    """Return the scores of all encoders and sizes with their intervals."""
    rows = [row for study in studies for row in score_rows(study)]
    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])


def _name(study: DatasetStatistics) -> str:
    """Return a study's name in the dashboard; for forests that of the dataset."""
    is_forest = study.predictor == FOREST
    return study.dataset if is_forest else f"{study.dataset}-{study.predictor}"


def _chart(study: DatasetStatistics) -> Any:
    """Return the learning curves of a study as an interactive chart."""
    return wandb.plot.line_series(
        xs=study.labels,
        ys=[[score.value for score in curve.scores] for curve in study.curves],
        keys=study.encoders,
        title=f"{_name(study)}: {study.metric.title}",
        xname="labelled images",
    )


def _pictures(folder: Path) -> dict[str, Any]:
    """Return learning curves with intervals, maps and nearest neighbours."""
    paths = {"curves/all": folder / f"{OVERVIEW}.png"}
    for path in sorted((folder / FIGURES).glob("*.png")):
        for start, part in (("learning-curve-", "curves"), ("map-", "maps")):
            if path.stem.startswith(start):
                paths[f"{part}/{path.stem.removeprefix(start)}"] = path
    paths |= {f"neighbours/{p.stem}": p for p in sorted((folder / NEIGHBOURS).glob("*.png"))}
    return {name: wandb.Image(str(path)) for name, path in paths.items()}


def log_files(loggers: Iterable[Logger], folder: Path) -> None:
    """Log the encoder with its model card, and the report with its numbers, as artifacts."""
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
    """Close the W&B runs, so that their files are complete before the program ends."""
    for logger in wandb_loggers(loggers):
        logger.experiment.finish()


def wandb_loggers(loggers: Iterable[Logger]) -> list[WandbLogger]:
    """Return the loggers of W&B."""
    return [logger for logger in loggers if isinstance(logger, WandbLogger)]
