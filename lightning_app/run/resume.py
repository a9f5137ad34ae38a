"""Resuming an interrupted run.

Order and augmentation are functions of the number of micro-batches trained, so a checkpoint of
weights, optimizer and counters is all that a run needs to continue exactly.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from datamodules.core.errors import ConfigError
from evaluation.run_files import REPORT
from lightning_app.config import Config, load_config, to_dict
from lightning_app.run.checkpoint_io import newest_readable
from lightning_app.run.folder import claim, create_run_folder, is_claimed
from lightning_app.run.processes import decide_once

KEY = "resume="
CHECKPOINTS = "checkpoints"
MAY_CHANGE = ("trainer", "wandb", "loggers")


def resumed_config(folder: Path, overrides: list[str]) -> Config:
    """Return the configuration of an interrupted run; overrides may change `MAY_CHANGE`.

    Raises:
        ConfigError: not a run's folder, the run is finished, or another setting would change.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"resume={folder}: not the folder of a run (it holds no config.yaml)")
    if _is_finished(folder):
        raise ConfigError(f"resume={folder}: the run is finished; to train longer, start a new run")
    for override in overrides:
        if re.split("[.=]", override)[0] not in MAY_CHANGE:
            raise ConfigError(
                f"'{override}': a resumed run keeps its settings; only trainer.*, wandb.* and "
                "loggers may change"
            )
    return load_config(folder / "config.yaml", overrides)


def newest_unfinished(config: Config) -> Path | None:
    """Return the newest unfinished run with these settings that no process works on.

    Runs of the same name with other settings do not count: the jobs of a sweep stay apart.
    """
    wanted = _kept_settings(config)
    runs = [
        path.parent
        for path in Path(config.out).glob(f"{config.name}-*/config.yaml")
        if not _is_finished(path.parent)
        and _kept_settings(load_config(path)) == wanted
        and not is_claimed(path.parent)
    ]
    return max(runs, key=lambda path: path.stat().st_mtime, default=None)


def open_run(config: Config, folder: Path | None) -> tuple[Path, Path | None, int]:
    """Create or claim the run's folder; return it, the checkpoint to load and its steps.

    The first process decides: ranks could otherwise disagree on the time or on a damaged file.
    """

    def decide() -> str:
        run = folder or create_run_folder(config)
        claim(run)
        checkpoint, steps = newest_readable(run / CHECKPOINTS) or ("", 0)
        return json.dumps([str(run), str(checkpoint), steps])

    run, checkpoint, steps = json.loads(decide_once("run", decide))
    return Path(run), Path(checkpoint) if checkpoint else None, int(steps)


def _is_finished(folder: Path) -> bool:
    """A run writes its report last."""
    return (folder / REPORT).is_file()


def _kept_settings(config: Config) -> dict[str, Any]:
    return {key: value for key, value in to_dict(config).items() if key not in MAY_CHANGE}
