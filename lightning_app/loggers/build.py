"""The loggers of a run: always a CSV file, W&B unless disabled, TensorBoard on request."""

from __future__ import annotations

import importlib.util
import netrc
import os
import secrets
from collections.abc import Mapping
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
from lightning_app.run.processes import is_first_process


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
        ConfigError: TensorBoard is requested and not installed.
    """
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "tensorboard=true: TensorBoard is not installed; "
            "run `make install EXTRAS='offline-weights dev tensorboard'`"
        )


def build_loggers(config: Config, folder: Path, origin: Mapping[str, Any]) -> list[Logger]:
    """Return the loggers of a training run, which write into its folder."""
    loggers: list[Logger] = [CsvLog(folder / "metrics.csv")]
    if config.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    return [*loggers, *wandb_logger(config, folder, origin, "pretrain", _wandb_id(folder))]


def wandb_logger(
    config: Config,
    folder: Path,
    origin: Mapping[str, Any],
    verb: str,
    run_id: str | None = None,
) -> list[WandbLogger]:
    """Return W&B's logger, which logs configuration and provenance; empty if it is disabled.

    Args:
        config: the run's configuration.
        folder: folder of W&B's files.
        origin: provenance.
        verb: groups runs unless a group is configured.
        run_id: id of the W&B run to continue; None starts a new one.
    """
    mode = wandb_mode(config.wandb.mode)
    if mode == "disabled":
        return []
    # The program prints one line of its own instead of W&B's messages at start and end.
    wandb.setup(settings=wandb.Settings(silent=True))
    tags = ["synthetic tissue" if origin["synthetic"] else "real tissue", str(origin["encoder"])]
    tags += [f"git {origin['commit']}"] if origin["commit"] else []
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


def _wandb_id(folder: Path) -> str:
    """Return the W&B id stored in a run's folder: a resumed run is the same run."""
    path = folder / "wandb_id.txt"
    if path.is_file():
        return path.read_text().strip()
    run_id = secrets.token_hex(4)
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
