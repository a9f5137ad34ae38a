"""Where numbers go: always a CSV file, and W&B unless it is disabled."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import Logger, WandbLogger

from lightning_app.config import Config, to_dict
from lightning_app.csv_log import CsvLog
from lightning_app.ranks import is_first_process

log = logging.getLogger(__name__)


def build_loggers(config: Config, folder: Path, origin: Mapping[str, Any]) -> list[Logger]:
    """The loggers of a run.

    Args:
        config: the run's configuration, logged in full.
        folder: the run's folder; metrics.csv and W&B's files go there.
        origin: provenance, logged beside the configuration.
    """
    loggers: list[Logger] = [CsvLog(folder / "metrics.csv")]
    mode = wandb_mode(config.wandb.mode)
    if mode == "disabled":
        return loggers
    # What W&B would print at start and end, the program's own summary says in one line.
    wandb.setup(settings=wandb.Settings(silent=True))
    logger = WandbLogger(
        name=folder.name,
        id=_wandb_id(folder),
        save_dir=folder,
        project=config.wandb.project,
        entity=config.wandb.entity,
        group=config.wandb.group,
        tags=[*config.wandb.tags, *_tags(origin)],
        mode=mode,
        config={**to_dict(config), "provenance": dict(origin)},
    )
    return [*loggers, logger]


def _wandb_id(folder: Path) -> str:
    """The run's id, kept in its folder, so that a resumed run is the same run."""
    path = folder / "wandb_id.txt"
    if path.is_file():
        return path.read_text().strip()
    fresh = secrets.token_hex(4)
    if is_first_process():  # the only one whose logger talks to W&B
        path.write_text(fresh)
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
