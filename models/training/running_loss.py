"""Losses between two optimizer steps and two rows of the log, over all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.distributed import sum_over_ranks
from models.network.losses import LossTerm
from models.tasks import TaskSpec


@dataclass(frozen=True)
class StepLoss:
    """The loss of one task on one micro-batch of the current optimizer step.

    Attributes:
        spec: the task.
        images: int64 (n,), their positions in the dataset's store; on the CPU.
        value: scalar on the device, without gradient.
    """

    spec: TaskSpec
    images: Tensor
    value: Tensor


class RunningLoss:
    """Mean loss of each task since the last call of `take`; does not wait for the device.

    Args:
        keys: all tasks, the same on every rank.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._losses: dict[str, list[Tensor]] = {key: [] for key in keys}

    def add(self, key: str, loss: Tensor) -> None:
        """Add a loss."""
        self._losses[key].append(loss)

    def take(self, device: torch.device) -> dict[str, float]:
        """Return means over micro-batches and ranks, of tasks with any loss, and reset.

        Losses that are not finite are left out: the callback NonFiniteGuard reports them.
        """
        rows = []
        for losses in self._losses.values():
            values = torch.stack(losses) if losses else torch.zeros(0, device=device)
            finite = values.isfinite()
            rows.append(torch.stack([values.where(finite, 0.0).sum(), finite.float().sum()]))
            losses.clear()
        both = sum_over_ranks(torch.stack(rows)).tolist()
        return {key: s / n for key, (s, n) in zip(self._losses, both, strict=True) if n}


def count_over_ranks(terms: dict[str, list[LossTerm]]) -> dict[str, Tensor]:
    """Sum the label counts of a micro-batch over all ranks, by task, in one collective call."""
    flat = torch.stack([term.count for task in terms.values() for term in task])
    parts = torch.split(sum_over_ranks(flat), [len(task) for task in terms.values()])
    return dict(zip(terms, parts, strict=True))
