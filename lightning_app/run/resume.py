"""Going on with a run that was interrupted.

Order and augmentation are functions of the number of micro-batches trained, so a checkpoint of
weights, optimiser and counters is all that a run needs to go on as if it had never stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datamodules.core.errors import ConfigError
from lightning_app.config import Config, load_config, to_dict
from lightning_app.run.checkpoint_io import newest_readable
from lightning_app.run.folder import claim, create_run_folder, is_claimed
from lightning_app.run.processes import decided

KEY = "resume="
FOLDER = "checkpoints"
LAST_FILE = "report.html"
"""What a run writes last: where it lies, the run is finished."""

MAY_CHANGE = ("trainer", "wandb")


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
    if (folder / LAST_FILE).is_file():
        raise ConfigError(
            f"resume={folder}: the run is finished; train longer by starting a new one"
        )
    for override in overrides:
        if not override.startswith(tuple(f"{section}." for section in MAY_CHANGE)):
            raise ConfigError(
                f"'{override}': a resumed run keeps its settings; only trainer.* and wandb.* may "
                "change"
            )
    return load_config(folder / "config.yaml", overrides)


def newest_unfinished(config: Config) -> Path | None:
    """The newest run of these settings that did not come to its end and that nobody works on.

    Runs of the same name with other settings are others: the jobs of a sweep do not meet.
    """
    wanted = settings_of(config)
    runs = [
        path.parent
        for path in Path(config.out).glob(f"{config.name}-*/config.yaml")
        if not (path.parent / LAST_FILE).is_file()
        and settings_of(load_config(path)) == wanted
        and not is_claimed(path.parent)
    ]
    return max(runs, key=lambda path: path.stat().st_mtime, default=None)


def settings_of(config: Config) -> dict[str, Any]:
    """Everything that a resumed run keeps."""
    return {key: value for key, value in to_dict(config).items() if key not in MAY_CHANGE}


def settle(config: Config, folder: Path | None) -> tuple[Path, Path | None, int]:
    """The run's folder, the checkpoint to go on from and the steps behind it.

    The first process decides: a clock or a damaged file must not tell two ranks two things.
    """

    def decide() -> str:
        place = folder or create_run_folder(config)
        claim(place)
        checkpoint, steps = newest_readable(place / FOLDER) or ("", 0)
        return json.dumps([str(place), str(checkpoint), steps])

    place, checkpoint, steps = json.loads(decided("run", decide))
    return Path(place), Path(checkpoint) if checkpoint else None, int(steps)
