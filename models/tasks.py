"""A task of a run: one task of one dataset."""

from dataclasses import dataclass

from datamodules.core.errors import ConfigError
from datamodules.core.records import Task, TaskKind


@dataclass(frozen=True)
class TaskSpec:
    """One task of one dataset, named as in the run."""

    dataset: str
    task: Task
    mpp: float = 0.0  # µm/px at the network input; 0 where unknown, which detection does not allow
    class_weights: tuple[float, ...] = ()  # factors in the cross entropy, for segmentation

    def __post_init__(self) -> None:
        if self.task.kind is TaskKind.DETECTION and self.mpp <= 0:
            raise ConfigError(
                f"{self.key}: the size of a pixel is unknown, and objects are measured in µm; "
                f"set data.train.{self.dataset}.mpp"
            )
        segments = self.task.kind is TaskKind.SEGMENTATION
        if self.class_weights and (not segments or min(self.class_weights) < 0):
            raise ConfigError(
                f"data.train.{self.dataset}.class_weights: {self.task.name} is a {self.task.kind} "
                "task; only segmentation has class weights, and none may be negative"
            )
        if self.task.kind is not TaskKind.REGRESSION and not self.task.classes:
            raise ConfigError(f"{self.key}: a {self.task.kind} task must name its classes")

    @property
    def key(self) -> str:
        """Return the name in logs."""
        return f"{self.dataset}/{self.task.name}"

    @property
    def module_name(self) -> str:
        """Return the name among modules, which must not contain a dot."""
        return self.key.replace(".", "_")
