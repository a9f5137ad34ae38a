"""Sums and maxima over the ranks of a training, and whether weights are sharded."""

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum over all ranks, in place; unchanged where there is one."""
    if ranks() > 1:
        dist.all_reduce(tensor)
    return tensor


def largest_over_ranks(tensor: Tensor) -> Tensor:
    """Return the maximum over all ranks by element, in place; unchanged where there is one."""
    if ranks() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


def ranks() -> int:
    """Return the number of training processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_sharded(module: nn.Module) -> bool:
    """Return whether the weights are spread over the ranks (FSDP)."""
    return any(isinstance(p, DTensor) for p in module.parameters())
