"""How the losses of all tasks become one: fixed weights, learned ones, or joint directions."""

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

    The method "uncertainty" learns weights, with s of each task in `log_variance` (tasks,); all
    others keep them fixed.

    Raises:
        ConfigError: a weight is negative, or all are zero.

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
        """Return the share of some tasks, given by key, in the mean over all; scalar."""
        index = {key: number for number, key in enumerate(self.fixed)}
        terms = []
        for key, loss in losses.items():
            if self.log_variance is not None:
                log_variance = self.log_variance[index[key]]
                loss = torch.exp(-log_variance) * loss + log_variance
            terms.append(self.fixed[key] * loss)
        return torch.stack(terms).sum() / self.total

    def relative(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        """Return losses times fixed weights of mean 1; their mean is the result of `forward`."""
        mean = self.total / len(self.fixed)
        return [self.fixed[key] / mean * loss for key, loss in losses.items()]

    def learned(self) -> dict[str, float]:
        """Return the factor exp(-s) of each task's loss; nothing where weights are fixed."""
        if self.log_variance is None:
            return {}
        return dict(zip(self.fixed, torch.exp(-self.log_variance.detach()).tolist(), strict=True))


class JointDirection:
    """One direction for the shared weights from the gradients of all tasks.

    `name` is an aggregator of `torchjd.aggregation`, e.g. "UPGrad". It needs all tasks in one
    backward pass of one process, and memory for a Jacobian of tasks x shared weights.

    Raises:
        ConfigError: torchjd is not installed, or its aggregator is unknown or has a state.
    """

    def __init__(self, name: str) -> None:
        method = f"{TORCHJD}{name}"
        try:
            torchjd = importlib.import_module("torchjd.aggregation")
            self.autojac: Any = importlib.import_module("torchjd.autojac")
        except ImportError as error:
            install = 'make install EXTRAS="offline-weights dev balancing"'
            raise _refusal(method, f"torchjd is not installed; {install}") from error
        bases = {"Aggregator", "WeightedAggregator", "GramianWeightedAggregator"}
        known = {n for n in torchjd.__all__ if issubclass(getattr(torchjd, n), torchjd.Aggregator)}
        if name not in known - bases:
            names = ", ".join(sorted(known - bases))
            raise _refusal(method, f"torchjd has no such aggregator; it has {names}")
        try:
            self.aggregator: Any = getattr(torchjd, name)()
        except (ImportError, TypeError) as error:
            raise _refusal(method, f"cannot be used ({error}); choose UPGrad") from error
        if hasattr(self.aggregator, "reset"):
            raise _refusal(method, "has a state, which a checkpoint would lack; choose UPGrad")

    def backward(
        self, losses: Sequence[Tensor], shared: Sequence[Tensor], heads: Sequence[Tensor]
    ) -> None:
        """Backpropagate to shared weights by the aggregator, to those of heads from the mean."""
        # One task at a time: many operations of a network do not support batched gradients.
        self.autojac.backward(losses, inputs=shared, retain_graph=True, parallel_chunk_size=1)
        self.autojac.jac_to_grad(shared, self.aggregator)
        torch.autograd.backward(torch.stack(list(losses)).mean(), inputs=list(heads))


def joint_direction(
    method: str, micro_batches_per_round: int, compiled: bool
) -> JointDirection | None:
    """Return the joint direction of `optim.balancing`; None where it weighs losses.

    Raises:
        ConfigError: there is no such method, or the other settings rule it out.
    """
    if method in (FIXED, UNCERTAINTY):
        return None
    if not method.startswith(TORCHJD):
        raise _refusal(
            method,
            f"give {FIXED}, {UNCERTAINTY}, or {TORCHJD} and one of its aggregators, as in "
            f"{TORCHJD}UPGrad",
        )
    if micro_batches_per_round > 1:
        raise _refusal(method, "needs all tasks at once; set data.tasks_per_batch=0")
    if compiled:
        raise _refusal(method, "needs several backward passes; set model.compile=false")
    return JointDirection(method.removeprefix(TORCHJD))


def check_training(method: str, module: nn.Module, trainer: Any) -> None:
    """Check that this trainer can balance losses in this way.

    Raises:
        ConfigError: learned weights would differ between ranks; or for a joint direction several
            processes or micro-batches share a step, or losses are scaled.
    """
    joint, learned = method.startswith(TORCHJD), method == UNCERTAINTY
    reasons = {
        "only DDP keeps its weights equal on all ranks; set trainer.strategy=ddp or "
        f"optim.balancing={FIXED}": learned and is_sharded(module),
        f"works in one process; set trainer.devices=1, or optim.balancing={UNCERTAINTY}": joint
        and trainer.world_size > 1,
        "set trainer.rounds_per_step=1": joint and trainer.accumulate_grad_batches > 1,
        "does not support scaled losses; set trainer.precision=bf16-mixed or 32-true": joint
        and str(trainer.precision) == "16-mixed",
    }
    for reason, applies in reasons.items():
        if applies:
            raise _refusal(method, reason)


def _refusal(method: str, reason: str) -> ConfigError:
    return ConfigError(f"optim.balancing={method}: {reason}")
