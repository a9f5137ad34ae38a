"""Which tasks help each other and which conflict: their gradients at the end of the encoder."""

from __future__ import annotations

import logging
from itertools import combinations
from typing import Any

import pytorch_lightning as pl
import torch
import torch._functorch.config
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from models.distributed import is_sharded, ranks, sum_over_ranks
from models.network.encoder import Encoder

log = logging.getLogger(__name__)


class GradientConflicts(Callback):
    """Logs each task's gradient norm, and the cosine between the gradients of any two tasks.

    It does so every `every` optimizer steps.
    The gradients are those of a whole optimizer step over all ranks, of the unweighted losses, at
    the last shared weight of the encoder (as Z. Chen et al., "GradNorm", ICML 2018, section 3.1).
    There the backward pass of a task is still cheap, and memory holds one gradient of that weight
    per task. Training stays bit-identical. With ten tasks in one micro-batch, such a step took 1.2
    to 1.5 times as long (one CPU core; convnext_atto, tf_efficientnet_lite0, resnet18 at 96 px).
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._weight: nn.Parameter | None = None
        self._sums: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Find the weight; if there is none, log a warning and compare nothing."""
        if is_sharded(pl_module):
            log.warning("task gradients are not compared: FSDP shards the encoder's weights")
            return
        self._weight = last_shared_weight(pl_module.model.encoder)
        if self._weight is None:
            log.warning("task gradients are not compared: the end of the encoder is frozen")
        elif pl_module.settings.compile:
            # Compiled code may otherwise reuse buffers that a second backward pass needs.
            torch._functorch.config.donated_buffer = False

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Tensor) -> None:
        """Run a backward pass per task of the micro-batch, from its loss to the weight."""
        if self._weight is None or (trainer.global_step + 1) % self.every:
            return
        for key, task_loss in pl_module.losses.items():
            (gradient,) = torch.autograd.grad(task_loss, self._weight, retain_graph=True)
            flat = gradient.flatten().float()
            self._sums[key] = self._sums[key] + flat if key in self._sums else flat

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Log the gradients of the step's micro-batches."""
        if not self._sums:
            return
        keys = sorted(self._sums)
        rounds = trainer.accumulate_grad_batches // pl_module.micro_batches_per_round
        rows = sum_over_ranks(torch.stack([self._sums[key] for key in keys])) / (rounds * ranks())
        self._sums = {}
        metrics = conflicts(keys, rows)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)


def conflicts(keys: list[str], rows: Tensor) -> dict[str, float]:
    """Return norms and cosines of gradients, (tasks, entries) float32, by their names in the log.

    The cosine with a gradient of zero is left out.
    """
    norms = rows.norm(dim=1)
    cosines = (rows @ rows.T / torch.outer(norms, norms)).clamp(-1, 1).tolist()
    metrics = {f"gradients/{key}/norm": n for key, n in zip(keys, norms.tolist(), strict=True)}
    for (i, first), (j, second) in combinations(enumerate(keys), 2):
        if cosines[i][j] == cosines[i][j]:  # not NaN
            metrics[f"gradients/cosine/{first}|{second}"] = cosines[i][j]
    return metrics


def last_shared_weight(encoder: Encoder) -> nn.Parameter | None:
    """Return the last weight that both the embedding and the coarsest pyramid map depend on.

    None if no such weight is trained.
    """
    weights = [p for p in encoder.model.parameters() if p.requires_grad and p.ndim > 1]
    training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    image = torch.zeros(1, 3, encoder.input_size, encoder.input_size, device=device)
    with torch.enable_grad():
        output = encoder.forward(image)  # not compiled for a batch of one
        ends = [end.sum() for end in (output.pyramid[-1], output.embedding)]
        if not (weights and all(end.requires_grad for end in ends)):
            encoder.train(training)
            return None
        on_map, on_embedding = (
            torch.autograd.grad(end, weights, retain_graph=True, allow_unused=True) for end in ends
        )
    encoder.train(training)
    shared = [
        weight
        for weight, first, second in zip(weights, on_map, on_embedding, strict=True)
        if first is not None and second is not None
    ]
    return shared[-1] if shared else None
