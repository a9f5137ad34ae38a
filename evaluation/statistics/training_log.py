"""Reads the metrics.csv of a training.

Its rows hold `step`, `epoch` and what was logged together: `train/<dataset>/<task>/loss`,
`val/<dataset>/<task>/<metric>`, `val/summary`, `speed/<what>` and, if gradients of tasks were
compared, `gradients/cosine/<dataset>/<task>|<dataset>/<task>`.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from datamodules.core.errors import ProbeError
from models.metrics.task_metrics import SUMMARY

MAIN = tuple(dict.fromkeys(SUMMARY.values()))  # the main metric of each kind of task
LOWER_IS_BETTER = ("mse", "mae")
UNBOUNDED = ("r2", *LOWER_IS_BETTER)  # the others lie between 0 and 1
_COSINE = "gradients/cosine/"


@dataclass(frozen=True)
class TaskLog:
    """The log of one task."""

    dataset: str
    task: str
    loss_steps: list[int]  # optimizer steps of the training loss
    loss: list[float]
    metric_steps: list[int]  # optimizer steps of the validations
    metrics: dict[str, list[float]]  # by name, one value per validation
    metric: str  # name of the main one; empty without validation
    bounded: bool  # whether the main one lies between 0 and 1

    @property
    def main(self) -> list[float]:
        """Values of the main metric; empty without validation."""
        return self.metrics.get(self.metric, [])

    @property
    def best(self) -> tuple[float, int]:
        """Best value of the main metric, and the number of optimizer steps before it."""
        best = (min if self.metric in LOWER_IS_BETTER else max)(self.main)
        return best, self.metric_steps[self.main.index(best)] + 1


@dataclass(frozen=True)
class Agreement:
    """How far the gradients of two tasks ("dataset/task") in the shared encoder agree."""

    first: str
    second: str
    cosine: float  # mean over the log
    opposed: float  # share of the rows in which the cosine is below zero


@dataclass(frozen=True)
class TrainingLog:
    """The log of a whole training; what was not logged is None."""

    tasks: tuple[TaskLog, ...]
    steps: int
    epochs: int
    summary: float | None  # last mean of the tasks' main validation metrics
    images_per_second: float | None  # median
    waiting: float | None  # median share of the time spent waiting for data
    gpu_memory: float | None  # peak memory in use on the device in GiB
    agreements: tuple[Agreement, ...]  # of each pair of tasks; empty if gradients were not compared


def read_training_log(path: Path) -> TrainingLog | None:
    """Read a metrics.csv; return None if it does not contain a training.

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
    names = [column.split("/") for column in table.columns]
    tasks = tuple(_task(table, *n[1:3]) for n in names if (n[0], n[3:]) == ("train", ["loss"]))
    if not tasks:
        return None
    epochs, summary = _logged(table, "epoch"), _logged(table, "val/summary")
    speed, waiting, memory = (
        _logged(table, f"speed/{name}")
        for name in ("images_per_second", "waiting_for_data", "gpu_memory_gib")
    )
    return TrainingLog(
        tasks=tasks,
        steps=max(task.loss_steps[-1] for task in tasks) + 1,  # final scores have a later row
        epochs=int(epochs.max()) + 1 if len(epochs) else 0,
        summary=float(summary.iloc[-1]) if len(summary) else None,
        images_per_second=float(speed.median()) if len(speed) else None,
        waiting=float(waiting.median()) if len(waiting) else None,
        gpu_memory=float(memory.max()) if len(memory) else None,
        agreements=tuple(_agreement(table, c) for c in table.columns if c.startswith(_COSINE)),
    )


def _agreement(table: pd.DataFrame, column: str) -> Agreement:
    first, _, second = column.removeprefix(_COSINE).partition("|")
    values = _logged(table, column)
    return Agreement(first, second, float(values.mean()), float((values < 0).mean()))


def _task(table: pd.DataFrame, dataset: str, task: str) -> TaskLog:
    loss = _logged(table, f"train/{dataset}/{task}/loss")
    prefix = f"val/{dataset}/{task}/"
    columns = [name for name in table if name.startswith(prefix) and name != f"{prefix}loss"]
    metrics = {name.removeprefix(prefix): _logged(table, name) for name in columns}
    metrics = {name: values for name, values in metrics.items() if len(values)}
    main = next((name for name in MAIN if name in metrics), next(iter(metrics), ""))
    return TaskLog(
        dataset=dataset,
        task=task,
        loss_steps=loss.index.tolist(),
        loss=loss.tolist(),
        metric_steps=metrics[main].index.tolist() if main else [],
        metrics={name: values.tolist() for name, values in metrics.items()},
        metric=main,
        bounded=main not in UNBOUNDED,
    )


def _logged(table: pd.DataFrame, name: str) -> pd.Series:
    """Return the logged values of a column by step."""
    if name not in table.columns:
        return pd.Series(dtype=float)
    return pd.Series(table[name].to_numpy(), table["step"]).dropna()
