"""Losses of tasks on micro-batches, their means and label counts over all ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.distributed import sum_over_ranks
from models.network.losses import LossTerm
from models.tasks import TaskSpec


@dataclass(frozen=True)
class StepLoss:
    """The loss of one task on one micro-batch of the current optimizer step."""

    spec: TaskSpec
    images: Tensor  # int64 (n,), their positions in the dataset's store; on the CPU
    value: Tensor  # scalar on the device, without gradient


def mean_over_ranks(
    losses: Sequence[StepLoss], keys: Sequence[str], device: torch.device
) -> dict[str, float]:
    """Return the mean loss of each task that has any, over micro-batches and ranks.

    `losses` are of this rank, `keys` all tasks, the same on every rank. Losses that are not finite
    are left out: the callback NonFiniteGuard reports them.
    """
    rows = []
    for key in keys:
        of_task = [loss.value for loss in losses if loss.spec.key == key]
        values = torch.stack(of_task) if of_task else torch.zeros(0, device=device)
        finite = values.isfinite()
        rows.append(torch.stack([values.where(finite, 0.0).sum(), finite.float().sum()]))
    sums = sum_over_ranks(torch.stack(rows)).tolist()
    return {key: total / count for key, (total, count) in zip(keys, sums, strict=True) if count}


def count_over_ranks(terms: dict[str, list[LossTerm]]) -> dict[str, Tensor]:
    """Sum the label counts of a micro-batch over all ranks, by task, in one collective call."""
    flat = torch.stack([term.count for task in terms.values() for term in task])
    parts = torch.split(sum_over_ranks(flat), [len(task) for task in terms.values()])
    return dict(zip(terms, parts, strict=True))
