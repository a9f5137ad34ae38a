"""The `pretrain` verb: choose the recipe, run it, show what came out."""

from __future__ import annotations

import logging
from pathlib import Path

from datamodules.core.errors import StoppedError
from lightning_app.commands.recipes import choose_config, print_banner
from lightning_app.commands.results import print_result
from lightning_app.config import Config
from lightning_app.pretrain import pretrain
from lightning_app.run.processes import decided, is_first_process
from lightning_app.run.resume import KEY, newest_unfinished, resumed_config

log = logging.getLogger(__name__)


def run_pretrain(path: Path | None, overrides: list[str]) -> int:
    """Run a pretraining, or go on with one; return the exit code.

    `resume=<run folder>` goes on with that run. `resume=auto` goes on with the newest unfinished
    run of the recipe's name, or starts one: a job that may be killed is started by one command.
    """
    config, folder = _chosen(path, overrides)
    if is_first_process():
        print_banner(config)
        if folder:
            log.info("going on with %s", folder)
    try:
        folder = pretrain(config, folder)
    except StoppedError:
        if is_first_process():
            raise
        return 0  # one process speaks for all, and a launcher kills nobody who still writes
    if is_first_process():
        print_result(folder)
    return 0


def _chosen(path: Path | None, overrides: list[str]) -> tuple[Config, Path | None]:
    """The configuration, and the folder of the run to go on with if there is one."""
    wanted = [item.removeprefix(KEY) for item in overrides if item.startswith(KEY)]
    others = [item for item in overrides if not item.startswith(KEY)]
    if not wanted:
        return choose_config(path, others), None
    folder = Path(wanted[-1])
    if wanted[-1] == "auto":
        fresh = choose_config(path, others)
        newest = decided("resume", lambda: str(newest_unfinished(fresh) or ""))
        return fresh, Path(newest) if newest else None
    return resumed_config(folder, others), folder
