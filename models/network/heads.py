"""Heads: the last layer of a task, its loss and its prediction. Here those of whole images.

A head is a single layer, so that training shapes the shared neck, decoder and tower.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from datamodules.core.errors import ConfigError
from datamodules.core.records import Task, TaskKind
from models.network import losses
from models.network.detection_grid import Detections
from models.network.losses import LossTerm

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

Prediction = Tensor | Detections
"""classification and multilabel: probabilities (n, classes); regression: values (n,);
segmentation: class index (n, height, width); detection: `Detections`."""


@dataclass
class Features:
    """The inputs of a head, for the images of one dataset."""

    embedding: Tensor  # (n, dim)
    dense: Tensor | None = None  # the decoder's map (n, width, h, w), for segmentation
    tower: dict[int, Tensor] = field(default_factory=dict)  # its maps by pyramid level
    size: tuple[int, int] = (0, 0)  # height and width of the network input in pixels


class Head(nn.Module, ABC):
    """Interface of all heads. An output is one tensor whose first dimension counts images."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    @abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Return the raw output, (n, ...)."""

    @abstractmethod
    def loss(self, output: Tensor, target: Any) -> list[LossTerm]:
        """Compare the output of `forward` with a `BatchTarget` of the task's kind.

        Quotients sum / count of the terms add up to the loss, about 1 at random weights.
        """

    @abstractmethod
    def predict(self, output: Tensor) -> Prediction:
        """Turn the output into a prediction."""


class ClassificationHead(Head):
    """One class per image, or any number of classes in a multilabel task.

    Example:
        >>> task = Task("tissue", TaskKind.CLASSIFICATION, ("stroma", "tumour"))
        >>> head = ClassificationHead(task, dim=8)
        >>> output = head(Features(torch.rand(3, 8)))
        >>> head.predict(output).shape
        torch.Size([3, 2])
        >>> (term,) = head.loss(output, torch.tensor([0, 1, 1]))
        >>> round((term.sum / term.count).item(), 1)
        1.0
    """

    def __init__(self, task: Task, dim: int) -> None:
        super().__init__(task)
        self.linear = init_head(nn.Linear(dim, len(task.classes)))
        self.multilabel = task.kind is TaskKind.MULTILABEL

    def forward(self, features: Features) -> Tensor:
        """Return logits (n, classes)."""
        out: Tensor = self.linear(features.embedding)
        return out

    def loss(self, output: Tensor, target: Tensor) -> list[LossTerm]:
        """Return the cross entropy relative to chance."""
        compare = losses.binary_cross_entropy if self.multilabel else losses.cross_entropy
        return compare(output, target)

    def predict(self, output: Tensor) -> Tensor:
        """Return probabilities (n, classes)."""
        return output.float().sigmoid() if self.multilabel else output.float().softmax(1)


class RegressionHead(Head):
    """One number per image.

    A bounded target is predicted through a sigmoid and measured against the variance of the
    uniform distribution on its range. An unbounded one is standardised by the mean and variance
    of all targets seen so far.

    Example:
        >>> head = RegressionHead(Task("cellularity", TaskKind.REGRESSION, low=0, high=1), dim=8)
        >>> values = head.predict(head(Features(torch.randn(3, 8))))
        >>> values.shape, bool(((values > 0) & (values < 1)).all())
        (torch.Size([3]), True)
    """

    seen: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, task: Task, dim: int) -> None:
        super().__init__(task)
        self.linear = init_head(nn.Linear(dim, 1))
        low, high = task.low, task.high
        self.bounds = None if low is None or high is None else (low, high - low)
        if self.bounds is not None and self.bounds[1] <= 0:
            raise ConfigError(f"task {task.name}: high={high} must be above low={low}")
        variance = self.bounds[1] ** 2 / 12 if self.bounds else 1.0
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.tensor(variance))

    def forward(self, features: Features) -> Tensor:
        """Return unscaled values (n,)."""
        out: Tensor = self.linear(features.embedding).squeeze(1)
        return out

    def loss(self, output: Tensor, target: Tensor) -> list[LossTerm]:
        """Return the squared error relative to the variance of the targets."""
        values = target.float()
        if self.training and self.bounds is None and len(values):
            self._observe(values)
        return losses.squared_error(self.predict(output), values, self.variance)

    def predict(self, output: Tensor) -> Tensor:
        """Return values in the target's unit (n,)."""
        output = output.float()
        if self.bounds is not None:
            low, span = self.bounds
            return low + span * output.sigmoid()
        return self.mean + self.variance.sqrt() * output

    @torch.no_grad()
    def _observe(self, values: Tensor) -> None:
        """Welford's update in place: ranks keep equal buffers, and no device is waited for."""
        count = len(values)
        seen = self.seen + count
        share = count / seen
        delta = values.mean() - self.mean
        variance = values.var(unbiased=False) + (1 - share) * delta.square()
        mixed = (1 - share) * self.variance + share * variance
        variance = torch.where(self.seen > 0, mixed, variance)
        # All targets equal: nothing to standardise by.
        self.variance.copy_(torch.where(variance > 1e-8, variance, torch.ones_like(variance)))
        self.mean.add_(share * delta)
        self.seen.copy_(seen.clamp(max=1e6))


def init_head(layer: Layer) -> Layer:
    """Initialise a last layer near zero: its first prediction is chance, whatever the features."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
