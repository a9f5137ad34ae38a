"""How the losses of all tasks become one: fixed weights, learned ones, or joint directions."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.core.errors import ConfigError
from models.distributed import is_sharded
from models.tasks import TaskSpec

FIXED, UNCERTAINTY, TORCHJD = "fixed", "uncertainty", "torchjd:"


class LossWeights(nn.Module):
    """The weighted mean of losses, relative to the sum of the weights of all tasks.

    Learned weights follow A. Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh
    Losses" (CVPR 2018), section 3: with s the logarithm of a task's noise variance its loss L
    becomes exp(-s) L + s, least at s = ln L. Here all kinds of task are treated alike, at twice
    the paper's scale, so that training starts from the fixed weights.

    Args:
        specs: all tasks of the run.
        method: "uncertainty" learns weights; all else keeps them fixed.

    Raises:
        ConfigError: a weight is negative, or all are zero.

    Attributes:
        log_variance: (tasks,), s of each task; None where weights are fixed.
    """

    log_variance: nn.Parameter | None

    def __init__(self, specs: Sequence[TaskSpec], method: str) -> None:
        super().__init__()
        self.fixed = {spec.key: spec.task.weight for spec in specs}
        self.total = sum(self.fixed.values())
        if min(self.fixed.values()) < 0 or self.total == 0:
            raise ConfigError(
                "loss weights must not be negative, and one must be positive; see "
                "data.train.<dataset>.weights"
            )
        learned = nn.Parameter(torch.zeros(len(specs))) if method == UNCERTAINTY else None
        self.register_parameter("log_variance", learned)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The share of some tasks in the mean over all; scalar.

        Args:
            losses: scalar, by task key.
        """
        numbers = {key: at for at, key in enumerate(self.fixed)}
        terms = []
        for key, loss in losses.items():
            if self.log_variance is not None:
                spread = self.log_variance[numbers[key]]
                loss = torch.exp(-spread) * loss + spread
            terms.append(self.fixed[key] * loss)
        return torch.stack(terms).sum() / self.total

    def relative(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        """Losses times fixed weights of mean 1, so that the mean of all is what `forward` gives."""
        mean = self.total / len(self.fixed)
        return [self.fixed[key] / mean * loss for key, loss in losses.items()]

    def learned(self) -> dict[str, float]:
        """The factor exp(-s) of each task's loss; nothing where weights are fixed."""
        if self.log_variance is None:
            return {}
        return dict(zip(self.fixed, torch.exp(-self.log_variance.detach()).tolist(), strict=True))


class JointDirection:
    """One direction for the shared weights out of the gradients of all tasks, by torchjd.

    Needs all tasks in one backward pass of one process: with a Jacobian of tasks x shared weights
    in memory.

    Args:
        name: of an aggregator of `torchjd.aggregation`, e.g. "UPGrad".

    Raises:
        ConfigError: torchjd is not installed, or its aggregator is unknown or has a state.
    """

    def __init__(self, name: str) -> None:
        try:
            known = importlib.import_module("torchjd.aggregation")
            self.autojac: Any = importlib.import_module("torchjd.autojac")
        except ImportError as error:
            raise ConfigError(
                f"optim.balancing={TORCHJD}{name}: torchjd is not installed; "
                'make install EXTRAS="offline-weights dev balancing"'
            ) from error
        bases = ("Aggregator", "WeightedAggregator", "GramianWeightedAggregator")
        found = {n for n in known.__all__ if issubclass(getattr(known, n), known.Aggregator)}
        if name not in found.difference(bases):
            raise ConfigError(
                f"optim.balancing={TORCHJD}{name}: torchjd has no such aggregator; it has "
                + ", ".join(sorted(found.difference(bases)))
            )
        try:
            self.aggregator: Any = getattr(known, name)()
        except (ImportError, TypeError) as error:
            raise ConfigError(
                f"optim.balancing={TORCHJD}{name}: cannot be used ({error}); choose UPGrad"
            ) from error
        if hasattr(self.aggregator, "reset"):
            raise ConfigError(
                f"optim.balancing={TORCHJD}{name}: it remembers earlier steps, which a checkpoint "
                "would not hold; choose one without a state, such as UPGrad"
            )

    def backward(
        self, losses: Sequence[Tensor], shared: Sequence[Tensor], own: Sequence[Tensor]
    ) -> None:
        """Add gradients up: aggregated ones to the shared weights, the mean's to the others.

        Args:
            losses: scalar, of each task.
            shared: trainable weights of encoder, neck, decoder and tower.
            own: trainable weights of the heads.
        """
        # One task after the other: many operations of a network know no batched gradient.
        self.autojac.backward(losses, inputs=shared, retain_graph=True, parallel_chunk_size=1)
        self.autojac.jac_to_grad(shared, self.aggregator)
        torch.autograd.backward(torch.stack(list(losses)).mean(), inputs=list(own))


def joint_direction(
    method: str, micro_batches_per_round: int, compiled: bool
) -> JointDirection | None:
    """What `optim.balancing` asks for beyond weights; None where it asks for weights.

    Raises:
        ConfigError: there is no such method, or the other settings rule it out.
    """
    if method in (FIXED, UNCERTAINTY):
        return None
    if not method.startswith(TORCHJD):
        raise ConfigError(
            f"optim.balancing={method}: give {FIXED}, {UNCERTAINTY}, or {TORCHJD} and one of its "
            f"aggregators, as in {TORCHJD}UPGrad"
        )
    if micro_batches_per_round > 1:
        raise ConfigError(
            f"optim.balancing={method}: compares the gradients of all tasks at once; "
            "set data.tasks_per_batch=0"
        )
    if compiled:
        raise ConfigError(
            f"optim.balancing={method}: goes backward several times, which a compiled encoder "
            "does not allow; set model.compile=false"
        )
    return JointDirection(method.removeprefix(TORCHJD))


def check_training(method: str, module: nn.Module, trainer: Any) -> None:
    """Whether this trainer can balance losses in this way.

    Raises:
        ConfigError: learned weights would differ between ranks; or for a joint direction several
            processes or micro-batches share a step, or losses are scaled.
    """
    if method == UNCERTAINTY and is_sharded(module):
        raise ConfigError(
            f"optim.balancing={method}: its weights are kept equal on all ranks by DDP only; "
            f"set trainer.strategy=ddp or optim.balancing={FIXED}"
        )
    if not method.startswith(TORCHJD):
        return
    if trainer.world_size > 1:
        raise ConfigError(
            f"optim.balancing={method}: works in one process; set trainer.devices=1, or "
            f"optim.balancing={UNCERTAINTY}"
        )
    if trainer.accumulate_grad_batches > 1:
        raise ConfigError(f"optim.balancing={method}: set trainer.rounds_per_step=1")
    if str(trainer.precision) == "16-mixed":
        raise ConfigError(
            f"optim.balancing={method}: does not know scaled losses; set "
            "trainer.precision=bf16-mixed or 32-true"
        )
