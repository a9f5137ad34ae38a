"""The loggers of a run, by choice: a CSV file, W&B, TensorBoard, MLflow."""

from __future__ import annotations

import importlib.util
import netrc
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from datamodules.core.atomic import write_text
from datamodules.core.errors import ConfigError
from evaluation.statistics.training_log import LOWER_IS_BETTER
from lightning_app.config import Config, to_dict
from lightning_app.loggers.csv_logger import CsvLog
from lightning_app.loggers.mlflow_logger import MLflowLog
from lightning_app.run.processes import is_first_process

EXTRAS = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
"""Packages of the loggers that come with an extra of their name."""


class SummarisingLogger(WandbLogger):
    """W&B's logger, with the best and the last value of losses and scores in the run's summary.

    W&B's own summary is the last value. Its name patterns do not help: if two of them match a
    name, the choice is undefined, and Lightning already uses the pattern of all names.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Define the summary of each new name before its first value."""
        defined = self.__dict__.setdefault("_defined", set())
        for name in metrics.keys() - defined:
            defined.add(name)
            if name.startswith(("train/", "val/", "test/")):
                self.experiment.define_metric(
                    name,
                    step_metric="trainer/global_step",
                    step_sync=True,
                    summary=f"{best_of(name)},last",
                )
        super().log_metrics(dict(metrics), step)


def best_of(name: str) -> str:
    """Return whether the least or the largest value of a metric is the best: "min" or "max"."""
    return "min" if name.rsplit("/", 1)[-1] in ("loss", *LOWER_IS_BETTER) else "max"


def check_loggers(config: Config) -> None:
    """Check before anything else that the loggers are installed.

    Raises:
        ConfigError: the extra of one is not installed.
    """
    for name in config.loggers:
        for module in EXTRAS.get(name, ()):
            if importlib.util.find_spec(module) is None:
                raise ConfigError(
                    f"loggers: {name} needs the package {module}, which is not installed; run "
                    f"`make install EXTRAS='offline-weights dev {name}'`, or leave {name} out"
                )


def build_loggers(config: Config, folder: Path, origin: Mapping[str, Any]) -> list[Logger]:
    """Return the loggers of a training run in their configured order.

    Raises:
        ConfigError: the server of one does not answer.
    """
    build: dict[str, Callable[[], Sequence[Logger]]] = {
        "csv": lambda: [CsvLog(folder / "metrics.csv")],
        "tensorboard": lambda: [TensorBoardLogger(folder, name="tensorboard", version="")],
        "mlflow": lambda: [MLflowLog(config, folder, _tags(origin))] if is_first_process() else [],
        "wandb": lambda: wandb_logger(config, folder, origin, "pretrain", _wandb_id(folder)),
    }
    return [logger for name in dict.fromkeys(config.loggers) for logger in build[name]()]


def wandb_logger(
    config: Config,
    folder: Path,
    origin: Mapping[str, Any],
    verb: str,
    run_id: str | None = None,
) -> list[WandbLogger]:
    """Return W&B's logger, which logs configuration and provenance; empty if it is not wanted.

    Args:
        config: the run's configuration.
        folder: folder of W&B's files.
        origin: provenance.
        verb: groups runs unless a group is configured.
        run_id: id of the W&B run to continue; None starts a new one.
    """
    mode = wandb_mode(config.wandb.mode)
    if mode == "disabled" or "wandb" not in config.loggers:
        return []
    # The program prints one line of its own instead of W&B's messages at start and end.
    wandb.setup(settings=wandb.Settings(silent=True))
    tissue, encoder, commit = _tags(origin).values()
    tags = [f"{tissue} tissue", encoder, *([f"git {commit}"] if commit else [])]
    logger = SummarisingLogger(
        name=folder.resolve().name,
        id=run_id,
        save_dir=folder.resolve(),  # W&B's service may have been started in another folder
        project=config.wandb.project,
        entity=config.wandb.entity,
        group=config.wandb.group or verb,
        job_type=verb,
        tags=[*config.wandb.tags, *tags],
        mode=mode,
        config={**to_dict(config), "provenance": dict(origin)},
    )
    return [logger]


def _tags(origin: Mapping[str, Any]) -> dict[str, str]:
    tissue = "synthetic" if origin["synthetic"] else "real"
    return {"tissue": tissue, "encoder": str(origin["encoder"]), "commit": str(origin["commit"])}


def _wandb_id(folder: Path) -> str:
    """Return the W&B id stored in a run's folder: a resumed run is the same run."""
    path = folder / "wandb_id.txt"
    if path.is_file():
        return path.read_text().strip()
    run_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)  # a sweep's agent chooses it
    if is_first_process():  # the only one whose logger connects to W&B
        write_text(path, run_id)
    return run_id


def wandb_mode(configured: str) -> str:
    """Resolve "auto": online if a key is configured, else offline; W&B never prompts."""
    if configured != "auto":
        return configured
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if os.environ.get("WANDB_API_KEY") or _has_netrc_entry() else "offline"


def _has_netrc_entry() -> bool:
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
