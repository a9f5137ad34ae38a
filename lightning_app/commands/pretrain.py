"""The `pretrain` verb: choose the recipe, run it, print the result."""

from __future__ import annotations

import logging
from pathlib import Path

from datamodules.core.errors import StoppedError
from lightning_app.commands.recipes import choose_config, print_banner
from lightning_app.commands.results import print_result
from lightning_app.config import Config
from lightning_app.pretrain import pretrain
from lightning_app.run.processes import decide_once, is_first_process
from lightning_app.run.resume import KEY, newest_unfinished, resumed_config

log = logging.getLogger(__name__)


def run_pretrain(path: Path | None, overrides: list[str]) -> int:
    """Start a pretraining or resume one; return the exit code.

    `resume=<run folder>` resumes that run. `resume=auto` resumes the newest unfinished run with
    these settings, or starts one: a job that may be killed needs one command only.
    """
    config, folder = _resolve(path, overrides)
    if is_first_process():
        print_banner(config)
        if folder:
            log.info("resuming %s", folder)
    try:
        folder = pretrain(config, folder)
    except StoppedError:
        if is_first_process():
            raise
        return 0  # rank 0 reports; a launcher would kill other ranks at a non-zero code
    if is_first_process():
        print_result(folder)
    return 0


def _resolve(path: Path | None, overrides: list[str]) -> tuple[Config, Path | None]:
    """Return the configuration, and the folder of the run to resume if there is one."""
    resume = [item.removeprefix(KEY) for item in overrides if item.startswith(KEY)]
    others = [item for item in overrides if not item.startswith(KEY)]
    if not resume:
        return choose_config(path, others), None
    if resume[-1] != "auto":
        return resumed_config(Path(resume[-1]), others), Path(resume[-1])
    config = choose_config(path, others)
    newest = decide_once("resume", lambda: str(newest_unfinished(config) or ""))
    return config, Path(newest) if newest else None
