"""Where numbers go: always a CSV file, W&B unless it is disabled, TensorBoard on request."""

from __future__ import annotations

import importlib.util
import logging
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

log = logging.getLogger(__name__)


class SummarisingLogger(WandbLogger):
    """W&B's logger, whose run summary holds the best and the last value of losses and scores.

    W&B's own summary is the last value alone. Its patterns of names cannot do it: which one of
    two that fit a name wins is left to chance, and Lightning has taken the pattern of all names.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Say how a name is summarised before its first value comes."""
        known = self.__dict__.setdefault("_summarised", set())
        for name in metrics.keys() - known:
            known.add(name)
            if name.startswith(("train/", "val/", "test/")):
                self.experiment.define_metric(
                    name,
                    step_metric="trainer/global_step",
                    step_sync=True,
                    summary=f"{best_of(name)},last",
                )
        super().log_metrics(dict(metrics), step)


def best_of(name: str) -> str:
    """Whether less or more is better, by a metric's last part: "min" or "max"."""
    return "min" if name.rsplit("/", 1)[-1] in ("loss", *LOWER_IS_BETTER) else "max"


def check_loggers(config: Config) -> None:
    """Find out before anything is done whether the loggers can be had.

    Raises:
        ConfigError: TensorBoard is wanted and not installed.
    """
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "tensorboard=true: TensorBoard is not installed; "
            "run `make install EXTRAS='offline-weights dev tensorboard'`"
        )


def build_loggers(config: Config, folder: Path, origin: Mapping[str, Any]) -> list[Logger]:
    """The loggers of a training run.

    Args:
        config: the run's configuration, logged in full.
        folder: the run's folder; metrics.csv and the files of W&B and TensorBoard go there.
        origin: provenance, logged beside the configuration.
    """
    loggers: list[Logger] = [CsvLog(folder / "metrics.csv")]
    if config.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    return [*loggers, *wandb_logger(config, folder, origin, "pretrain", _wandb_id(folder))]


def wandb_logger(
    config: Config,
    folder: Path,
    origin: Mapping[str, Any],
    verb: str,
    identity: str | None = None,
) -> list[WandbLogger]:
    """W&B's logger; none where it is disabled.

    Args:
        config: the run's configuration, logged in full.
        folder: W&B's files go there.
        origin: provenance, logged beside the configuration.
        verb: what is done; runs are grouped by it where no group is configured.
        identity: of the W&B run, to go on with it; a new one if None.
    """
    mode = wandb_mode(config.wandb.mode)
    if mode == "disabled":
        return []
    # What W&B would print at start and end, the program's own summary says in one line.
    wandb.setup(settings=wandb.Settings(silent=True))
    logger = SummarisingLogger(
        name=folder.resolve().name,
        id=identity,
        save_dir=folder,
        project=config.wandb.project,
        entity=config.wandb.entity,
        group=config.wandb.group or verb,
        job_type=verb,
        tags=[*config.wandb.tags, *_tags(origin)],
        mode=mode,
        config={**to_dict(config), "provenance": dict(origin)},
    )
    return [logger]


def _wandb_id(folder: Path) -> str:
    """The run's id, kept in its folder, so that a resumed run is the same run."""
    path = folder / "wandb_id.txt"
    if path.is_file():
        return path.read_text().strip()
    fresh = secrets.token_hex(4)
    if is_first_process():  # the only one whose logger talks to W&B
        write_text(path, fresh)
    return fresh


def wandb_mode(wanted: str) -> str:
    """What "auto" means here: online where a key is configured, else offline; never a prompt."""
    if wanted != "auto":
        return wanted
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _tags(origin: Mapping[str, Any]) -> list[str]:
    tags = ["synthetic tissue" if origin["synthetic"] else "real tissue", str(origin["encoder"])]
    if origin["commit"]:
        tags.append(f"git {origin['commit']}")
    return tags
