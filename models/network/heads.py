"""Heads: the last layer of a task, its loss and its prediction. Here those of whole images.

Neck, decoder and tower, which are shared, carry the capacity. A head is one layer, so that what
is learnt goes into what is shared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from datamodules.core.errors import ConfigError
from datamodules.core.records import Task, TaskKind
from datamodules.stream.batch import BatchTarget, DetectionTarget
from models.network import losses
from models.network.detection import Detections
from models.network.losses import LossTerm

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

Prediction = Tensor | Detections
"""classification and multilabel: probabilities (n, classes); regression: values (n,);
segmentation: class index (n, height, width); detection: `Detections`."""


@dataclass
class Features:
    """What a head may look at, for the images of one dataset.

    Attributes:
        embedding: (n, dim).
        dense: the decoder's map (n, width, h, w), for segmentation.
        tower: the tower's maps by pyramid level, for detection.
        size: height and width of the network input in pixels.
    """

    embedding: Tensor
    dense: Tensor | None = None
    tower: dict[int, Tensor] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)


class Head(nn.Module):
    """What every head offers. An output is one tensor whose first dimension counts images.

    Args:
        task: what the head is for.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, features: Features) -> Tensor:
        """Raw output, (n, ...)."""
        raise TypeError(f"{type(self).__name__} has no output")  # a Head alone is no head

    def loss(self, output: Tensor, target: BatchTarget) -> list[LossTerm]:
        """Terms whose quotients sum / count add up to the loss, about 1 at random weights."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def predict(self, output: Tensor) -> Prediction:
        """What the output means; see `Prediction`."""
        raise TypeError(f"{type(self).__name__} predicts nothing")


class ClassificationHead(Head):
    """One class, or with a multilabel task any number of classes, per image.

    Args:
        task: names the classes.
        dim: of the embedding.
    """

    def __init__(self, task: Task, dim: int) -> None:
        super().__init__(task)
        self.linear = quiet(nn.Linear(dim, len(task.classes)))
        self.multilabel = task.kind is TaskKind.MULTILABEL

    def forward(self, features: Features) -> Tensor:
        """Logits (n, classes)."""
        out: Tensor = self.linear(features.embedding)
        return out

    def loss(self, output: Tensor, target: BatchTarget) -> list[LossTerm]:
        """Cross entropy relative to chance."""
        values = dense_target(target)
        if self.multilabel:
            return losses.binary_cross_entropy(output, values)
        return losses.cross_entropy(output, values)

    def predict(self, output: Tensor) -> Tensor:
        """Probabilities (n, classes)."""
        return output.float().sigmoid() if self.multilabel else output.float().softmax(1)


class RegressionHead(Head):
    """One number per image.

    A bounded target is predicted through a sigmoid and measured against the variance of the
    uniform distribution on its range. A free one is standardised by the mean and variance of all
    targets seen so far.

    Args:
        task: `low` and `high` bound the target where both are given.
        dim: of the embedding.
    """

    seen: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, task: Task, dim: int) -> None:
        super().__init__(task)
        self.linear = quiet(nn.Linear(dim, 1))
        low, high = task.low, task.high
        self.bounded = low is not None and high is not None
        self.low, self.range = low or 0.0, 1.0
        variance = 1.0
        if low is not None and high is not None:
            if high <= low:
                raise ConfigError(f"task {task.name}: high={high} must be above low={low}")
            self.range = high - low
            variance = self.range**2 / 12
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.tensor(variance))

    def forward(self, features: Features) -> Tensor:
        """Unscaled value (n,)."""
        out: Tensor = self.linear(features.embedding).squeeze(1)
        return out

    def loss(self, output: Tensor, target: BatchTarget) -> list[LossTerm]:
        """Squared error relative to the variance of the targets."""
        values = dense_target(target).float()
        if self.training and not self.bounded and len(values):
            self._observe(values)
        return losses.squared_error(self.predict(output), values, self.variance)

    def predict(self, output: Tensor) -> Tensor:
        """Values in the target's own unit (n,)."""
        output = output.float()
        if self.bounded:
            return self.low + self.range * output.sigmoid()
        return self.mean + self.variance.sqrt() * output

    @torch.no_grad()
    def _observe(self, values: Tensor) -> None:
        """Welford's update; in place, so that distributed training keeps the buffers equal."""
        before, number = float(self.seen), len(values)
        share = number / (before + number)
        delta = values.mean() - self.mean
        spread = values.var(unbiased=False) + (1 - share) * delta.square()
        kept = (1 - share) * self.variance if before else 0.0
        variance = kept + share * spread if before else spread
        # All targets equal: nothing to standardise by.
        self.variance.copy_(torch.where(variance > 1e-8, variance, torch.ones_like(variance)))
        self.mean.add_(share * delta)
        self.seen.fill_(min(before + number, 1e6))


def quiet(layer: Layer) -> Layer:
    """Start a last layer near zero: its first prediction is chance, whatever the features."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def dense_target(target: BatchTarget) -> Tensor:
    """The target as a tensor, which it is for every task but detection."""
    if isinstance(target, DetectionTarget):
        raise TypeError("boxes were given to a head that needs a tensor")
    return target
