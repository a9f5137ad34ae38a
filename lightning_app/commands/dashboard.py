"""The `dashboard` verb: a W&B workspace with grouped panels for the runs of a project."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import wandb
from rich.console import Console
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from datamodules.core.errors import ConfigError
from evaluation.report.run import read_run
from evaluation.statistics.training_log import TaskLog
from lightning_app.config import load_config
from lightning_app.loggers.build import wandb_mode

NAME = "Multi-task pretraining"
STEP = "trainer/global_step"


def run_dashboard(folder: Path, entity: str | None) -> int:
    """Save the workspace in the project of a run's folder and print its address.

    W&B keeps workspaces on its server only, so this needs a login; the runs may follow later.
    """
    config = load_config(folder / "config.yaml")
    project = config.wandb.project
    made = workspace(folder, entity or config.wandb.entity or "", project)
    if wandb_mode("auto") != "online":
        raise ConfigError("dashboard: no W&B login; run `wandb login`, or set WANDB_API_KEY")
    wandb.setup(settings=wandb.Settings(silent=True))
    try:
        made.entity = made.entity or str(wandb.Api().default_entity)
        made.save()
        Console(soft_wrap=True, highlight=False, markup=False).print(f"dashboard: {made.url}")
    except (wandb.Error, WandbApiFailedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"dashboard: W&B did not take it for the project {project} ({reason}); send a run "
            "there first, with `wandb sync` if it was offline, and repeat this"
        ) from error
    return 0


def workspace(folder: Path, entity: str, project: str) -> Any:
    """Return the workspace for the tasks and unseen datasets of a run's folder.

    Raises:
        ConfigError: the extra is not installed.
        ProbeError: the folder holds no training.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise ConfigError(
            "dashboard: needs the package wandb-workspaces, which is not installed; run "
            "`make install EXTRAS='offline-weights dev dashboard'`"
        )
    ws: Any = importlib.import_module("wandb_workspaces.workspaces")
    wr: Any = importlib.import_module("wandb_workspaces.reports.v2")

    def plot(title: str, *keys: str, pattern: str | None = None, **settings: Any) -> Any:
        return wr.LinePlot(title=title, x=STEP, y=list(keys), metric_regex=pattern, **settings)

    def pictures(title: str, *keys: str) -> Any:
        return wr.MediaBrowser(title=title, media_keys=list(keys), num_columns=1)

    run = read_run(folder)
    tasks: tuple[TaskLog, ...] = run.tasks
    if not tasks:
        raise ConfigError(f"{folder}: holds no training; name the folder of one with metrics.csv")
    names = [f"{task.dataset}/{task.task}" for task in tasks]
    unseen = [n for n, facts in run.provenance["datasets"].items() if facts["role"] == "unseen"]
    sections = {
        "Overview": [
            plot("loss, all tasks", "train/loss"),
            plot("validation, mean of all tasks", "val/summary"),
            *([pictures("learning curves on unseen datasets", "curves/all")] if unseen else []),
        ],
        "Loss of each task": [plot(name, f"train/{name}/loss") for name in names],
        "Metric of each task": [
            plot(f"{name}: {task.metric}", f"val/{name}/{task.metric}")
            for name, task in zip(names, tasks, strict=True)
            if task.metric
        ],
        "Probe curves": [
            panel
            for name in unseen
            for panel in (
                pictures(name, f"curves/{name}"),
                plot(f"{name} during training", pattern=f"probe/{re.escape(name)}/.*"),
            )
        ],
        "Gradients": [
            plot("norm by task", pattern="gradients/.*/norm", log_y=True),
            plot("agreement of tasks", pattern="gradients/cosine/.*", range_y=(-1, 1)),
            plot("weights of losses", pattern="balancing/.*/weight"),
        ],
        "Throughput": [
            plot("images per second and GPU", "speed/images_per_second"),
            plot("share of time waiting for data", "speed/waiting_for_data", range_y=(0, 1)),
            plot("GPU memory in GiB", "speed/gpu_memory_gib"),
            plot("learning rates", pattern="lr-.*"),
        ],
        "Predictions": [pictures(name, f"panels/{name}") for name in names],
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(name=name, panels=panels, is_open=True)
            for name, panels in sections.items()
            if panels
        ],
    )
