"""Going on with a run that was interrupted.

Order and augmentation are functions of the number of micro-batches trained, so a checkpoint of
weights, optimiser and counters is all that a run needs to go on as if it had never stopped.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import CSVLogger

from datamodules.errors import ConfigError, TrainingError
from lightning_app.config import Config, load_config
from models.export import FACTS_FILE

KEY = "resume="
METRICS = "metrics.csv"


def resumed_config(folder: Path, overrides: list[str]) -> Config:
    """The configuration that an interrupted run started with.

    Args:
        folder: of the run.
        overrides: further settings; only those of `trainer` and `wandb` may change.

    Raises:
        ConfigError: not a run's folder, the run is finished, or another setting would change.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"resume={folder}: not the folder of a run (it holds no config.yaml)")
    if (folder / FACTS_FILE).is_file():
        raise ConfigError(
            f"resume={folder}: the run is finished; train longer by starting a new one"
        )
    for override in overrides:
        if not override.startswith(("trainer.", "wandb.")):
            raise ConfigError(
                f"'{override}': a resumed run keeps its settings; only trainer.* and wandb.* may "
                "change"
            )
    return load_config(folder / "config.yaml", overrides)


def newest_unfinished(config: Config) -> Path | None:
    """The newest run of this name that has a checkpoint and no export; None without one."""
    runs = [
        path
        for path in Path(config.out).glob(f"{config.name}-*")
        if newest_checkpoint(path) and not (path / FACTS_FILE).is_file()
    ]
    return max(runs, key=lambda path: path.stat().st_mtime, default=None)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that was written last; None where training never came to one."""
    found = (folder / "checkpoints").glob("*.ckpt")
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def optimizer_steps(checkpoint: Path) -> int:
    """Optimizer steps behind a checkpoint.

    Raises:
        TrainingError: the file is damaged.
    """
    try:
        content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return int(content["global_step"])
    except Exception as error:
        # torch reports damage in many ways; the cause is in the message.
        raise TrainingError(
            f"{checkpoint}: cannot be read ({error}); delete it to resume from an older one"
        ) from error


def continue_csv(logger: CSVLogger, steps: int) -> None:
    """Let a CSV logger go on with the rows that were logged up to a checkpoint.

    Lightning's logger deletes the file of an earlier run. Rows after the checkpoint are left out,
    because training will write them again.

    Args:
        logger: not yet used.
        steps: optimizer steps behind the checkpoint; row n is logged after n + 1 of them.
    """
    path = Path(logger.log_dir) / METRICS
    if not path.is_file():
        return
    with path.open(newline="") as file:
        rows = [_numbers(row) for row in csv.DictReader(file)]
    writer: Any = logger.experiment  # this deletes the file
    writer.metrics = [row for row in rows if row["step"] < steps]
    writer.save()


def _numbers(row: dict[str, str]) -> dict[str, float]:
    counts = ("step", "epoch")
    return {k: int(float(v)) if k in counts else float(v) for k, v in row.items() if v}
