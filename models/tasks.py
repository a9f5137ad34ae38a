"""A task of a run: what a dataset asks of the shared encoder."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.core.errors import ConfigError
from datamodules.core.records import Task, TaskKind


@dataclass(frozen=True)
class TaskSpec:
    """One task of one dataset.

    Attributes:
        dataset: the dataset's name in the run.
        task: what is to be learnt.
        mpp: um per pixel at the network input; 0 where unknown, which detection does not allow.
        class_weights: segmentation: factors of the classes in the cross entropy.
    """

    dataset: str
    task: Task
    mpp: float = 0.0
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.task.kind is TaskKind.DETECTION and self.mpp <= 0:
            raise ConfigError(
                f"{self.key}: the size of a pixel is unknown, and objects are measured in um; "
                f"set data.train.{self.dataset}.mpp"
            )
        if self.class_weights and self.task.kind is not TaskKind.SEGMENTATION:
            raise ConfigError(
                f"data.train.{self.dataset}.class_weights: {self.task.name} is a {self.task.kind} "
                "task; only segmentation has weights of classes"
            )
        if self.class_weights and min(self.class_weights) < 0:
            raise ConfigError(
                f"data.train.{self.dataset}.class_weights: {self.task.name} has a negative weight"
            )
        if self.task.kind is not TaskKind.REGRESSION and not self.task.classes:
            raise ConfigError(f"{self.key}: a {self.task.kind} task must name its classes")

    @property
    def key(self) -> str:
        """Name in logs."""
        return f"{self.dataset}/{self.task.name}"

    @property
    def module_name(self) -> str:
        """Name among modules, where a dot has a meaning of its own."""
        return self.key.replace(".", "_")
