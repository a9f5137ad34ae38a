"""Reads a training's metrics.csv, as training writes it.

Columns are `step`, `epoch`, `train/<dataset>/<task>/loss`, `val/<dataset>/<task>/<metric>`,
`val/summary`, `speed/<what>` and, where tasks' gradients were compared,
`gradients/cosine/<dataset>/<task>|<dataset>/<task>`; each row fills the few that were logged
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from datamodules.core.errors import ProbeError
from models.metrics.task_metrics import SUMMARY

MAIN = tuple(dict.fromkeys(SUMMARY.values()))
"""The metrics that stand for a task of each kind."""

LOWER_IS_BETTER = ("mse", "mae")
"""Metrics that are errors; of all others more is better."""

UNBOUNDED = ("r2", *LOWER_IS_BETTER)
"""Metrics that can leave the range from 0 to 1."""

_COSINE = "gradients/cosine/"


@dataclass(frozen=True)
class TaskLog:
    """One task's course.

    Attributes:
        dataset, task: names.
        loss_steps, loss: training loss at optimizer steps.
        metric_steps: steps of the validations.
        metrics: validation metrics by name, one value per validation.
        metric: the main one; empty without validation.
        bounded: whether the main one lies between 0 and 1.
    """

    dataset: str
    task: str
    loss_steps: list[int]
    loss: list[float]
    metric_steps: list[int]
    metrics: dict[str, list[float]]
    metric: str
    bounded: bool

    @property
    def lower_is_better(self) -> bool:
        """Whether the main metric is an error."""
        return self.metric in LOWER_IS_BETTER


@dataclass(frozen=True)
class Agreement:
    """How far two tasks want the same of the shared encoder.

    Attributes:
        first, second: "dataset/task".
        cosine: between their gradients, mean over the log.
        opposed: share of the rows in which it is below zero.
    """

    first: str
    second: str
    cosine: float
    opposed: float


@dataclass(frozen=True)
class TrainingLog:
    """A whole training's course.

    Attributes:
        tasks: in the order of the file.
        steps: optimizer steps taken.
        epochs: epochs finished.
        summary: mean of the tasks' main validation metrics, the last value; None without.
        images_per_second: median over the log; None where it was not logged.
        waiting: share of the time spent waiting for data, median; None where it was not logged.
        gpu_memory: most memory in use on the device in GiB; None without a GPU.
        agreements: of each pair of tasks; empty where gradients were not compared.
    """

    tasks: tuple[TaskLog, ...]
    steps: int
    epochs: int
    summary: float | None
    images_per_second: float | None
    waiting: float | None = None
    gpu_memory: float | None = None
    agreements: tuple[Agreement, ...] = ()


def read_training_log(path: Path) -> TrainingLog | None:
    """Read a metrics.csv; None where it holds no training.

    Raises:
        ProbeError: it is not such a file.
    """
    try:
        table = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise ProbeError(f"{path}: not a readable metrics file ({error})") from error
    if "step" not in table.columns:
        raise ProbeError(f"{path}: no column 'step'; expected the metrics.csv of a training")
    tasks = tuple(
        _task(table, *column.split("/")[1:3])
        for column in table.columns
        if column.startswith("train/") and column.count("/") == 3 and column.endswith("/loss")
    )
    if not tasks:
        return None
    summary = _column(table, "val/summary")
    speed, waiting, memory = (
        _column(table, f"speed/{name}")["value"]
        for name in ("images_per_second", "waiting_for_data", "gpu_memory_gib")
    )
    epochs = table["epoch"].dropna() if "epoch" in table else pd.Series(dtype=float)
    return TrainingLog(
        tasks=tasks,
        steps=max(task.loss_steps[-1] for task in tasks) + 1,  # final scores have a later row
        epochs=int(epochs.max()) + 1 if len(epochs) else 0,
        summary=float(summary["value"].iloc[-1]) if len(summary) else None,
        images_per_second=float(speed.median()) if len(speed) else None,
        waiting=float(waiting.median()) if len(waiting) else None,
        gpu_memory=float(memory.max()) if len(memory) else None,
        agreements=tuple(
            _agreement(table, column) for column in table.columns if column.startswith(_COSINE)
        ),
    )


def _agreement(table: pd.DataFrame, column: str) -> Agreement:
    first, _, second = column.removeprefix(_COSINE).partition("|")
    values = _column(table, column)["value"]
    return Agreement(first, second, float(values.mean()), float((values < 0).mean()))


def _task(table: pd.DataFrame, dataset: str, task: str) -> TaskLog:
    loss = _column(table, f"train/{dataset}/{task}/loss")
    prefix = f"val/{dataset}/{task}/"
    found = {
        column.removeprefix(prefix): _column(table, column)
        for column in table.columns
        if column.startswith(prefix) and column != f"{prefix}loss"
    }
    found = {name: values for name, values in found.items() if len(values)}
    main = next((name for name in MAIN if name in found), next(iter(found), ""))
    return TaskLog(
        dataset=dataset,
        task=task,
        loss_steps=[int(step) for step in loss["step"]],
        loss=[float(value) for value in loss["value"]],
        metric_steps=[int(step) for step in found[main]["step"]] if main else [],
        metrics={name: [float(v) for v in values["value"]] for name, values in found.items()},
        metric=main,
        bounded=main not in UNBOUNDED,
    )


def _column(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one column that were logged, as step and value."""
    if name not in table.columns:
        return pd.DataFrame({"step": [], "value": []})
    return table[["step", name]].dropna().rename(columns={name: "value"})
