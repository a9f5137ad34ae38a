"""What W&B gets beside the numbers of training: probes, curves, encoder and report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import wandb
from pytorch_lightning.loggers import Logger, WandbLogger

from evaluation.predictors import FOREST
from models.export import FACTS_FILE, WEIGHTS_FILE


def log_probes(loggers: Iterable[Logger], folder: Path) -> None:
    """Log a finished probe study: the table, the curves, and the mean scores as the summary.

    Args:
        loggers: of the run; those that are not W&B's are passed over.
        folder: of the run, with probes.csv and figures/.
    """
    for logger in wandb_loggers(loggers):
        run = logger.experiment
        table = pd.read_csv(folder / "probes.csv")
        run.log({"probes": wandb.Table(dataframe=table)})
        for path in sorted((folder / "figures").glob("learning-curve-*.png")):
            run.log({f"curves/{path.stem.removeprefix('learning-curve-')}": wandb.Image(str(path))})
        means = table.groupby(["dataset", "encoder", "predictor", "n_train"])["value"].mean()
        for (dataset, encoder, predictor, labels), value in means.items():
            name = encoder if predictor == FOREST else f"{encoder}/{predictor}"
            run.summary[f"probe/{dataset}/{name}/{labels:g}"] = float(value)


def log_files(loggers: Iterable[Logger], folder: Path) -> None:
    """Log encoder and report as artifacts."""
    for logger in wandb_loggers(loggers):
        encoder = wandb.Artifact("encoder", type="model")
        for name in (WEIGHTS_FILE, FACTS_FILE):
            encoder.add_file(str(folder / name))
        logger.experiment.log_artifact(encoder)
        if (folder / "report.html").is_file():
            report = wandb.Artifact("report", type="report")
            for name in ("report.html", "report.json"):
                report.add_file(str(folder / name))
            logger.experiment.log_artifact(report)


def finish(loggers: Iterable[Logger]) -> None:
    """Close the W&B runs, so that their files are complete when the program says so."""
    for logger in wandb_loggers(loggers):
        logger.experiment.finish()


def wandb_loggers(loggers: Iterable[Logger]) -> list[WandbLogger]:
    """The loggers that are W&B's."""
    return [logger for logger in loggers if isinstance(logger, WandbLogger)]
