"""Which tasks help each other and which fight: their gradients where the encoder ends."""

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
from models.module import MultiTaskModule
from models.network.encoder import Encoder

log = logging.getLogger(__name__)


class GradientConflicts(Callback):
    """Logs each task's gradient norm, and the cosine between the gradients of any two tasks.

    Taken of a whole optimizer step, all ranks together, at the last shared weight of the encoder
    (as Z. Chen et al., "GradNorm", ICML 2018, section 3.1): so a backward pass for each task ends
    where it begins to cost, and memory holds one gradient of that weight for each task. Losses
    count unweighted. Training itself does not change by a bit. With ten tasks and all of them in
    one micro-batch, a step that compares took 1.2 to 1.5 times one that does not (one CPU core;
    convnext_atto, tf_efficientnet_lite0, resnet18 at 96 px).

    Args:
        every: optimizer steps between two rows.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._weight: nn.Parameter | None = None
        self._sums: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the weight; without one that can be looked at, say so and compare nothing."""
        module = _ours(pl_module)
        if is_sharded(module):
            log.warning("the gradients of tasks are not compared: FSDP cuts weights into pieces")
            return
        self._weight = last_shared_weight(module.model.encoder)
        if self._weight is None:
            log.warning("the gradients of tasks are not compared: the encoder's end is frozen")
        elif module.settings.compile:
            # Compiled code may otherwise reuse buffers that a second backward pass needs.
            torch._functorch.config.donated_buffer = False

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Go backward once for each task of the micro-batch, from its loss to the weight."""
        if self._weight is None or (trainer.global_step + 1) % self.every:
            return
        for key, one in _ours(pl_module).losses.items():
            (gradient,) = torch.autograd.grad(one, self._weight, retain_graph=True)
            flat = gradient.flatten().float()
            self._sums[key] = self._sums[key] + flat if key in self._sums else flat

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Log what the step's micro-batches gave."""
        if not self._sums:
            return
        keys = sorted(self._sums)
        rounds = trainer.accumulate_grad_batches // _ours(pl_module).micro_batches_per_round
        rows = sum_over_ranks(torch.stack([self._sums[key] for key in keys])) / (rounds * ranks())
        self._sums = {}
        found = conflicts(keys, rows)
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.global_step)


def conflicts(keys: list[str], rows: Tensor) -> dict[str, float]:
    """Norms and cosines of gradients.

    Args:
        keys: of the tasks.
        rows: (tasks, entries).

    Returns:
        By name in the log; the cosine with a gradient of zero is left out.
    """
    norms = rows.norm(dim=1)
    cosines = (rows @ rows.T / torch.outer(norms, norms)).clamp(-1, 1).tolist()
    found = {f"gradients/{key}/norm": n for key, n in zip(keys, norms.tolist(), strict=True)}
    for (i, one), (j, other) in combinations(enumerate(keys), 2):
        if cosines[i][j] == cosines[i][j]:  # not NaN
            found[f"gradients/cosine/{one}|{other}"] = cosines[i][j]
    return found


def last_shared_weight(encoder: Encoder) -> nn.Parameter | None:
    """The last weight that both the embedding and the coarsest map of the pyramid depend on.

    None where no such weight is trained.
    """
    weights = [p for p in encoder.model.parameters() if p.requires_grad and p.ndim > 1]
    training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    image = torch.zeros(1, 3, encoder.input_size, encoder.input_size, device=device)
    with torch.enable_grad():
        out = encoder.forward(image)  # not compiled for a batch of one
        ends = [end.sum() for end in (out.pyramid[-1], out.embedding)]
        reached = [
            torch.autograd.grad(end, weights, retain_graph=True, allow_unused=True)
            for end in ends
            if end.requires_grad and weights
        ]
    encoder.train(training)
    if len(reached) < len(ends):
        return None
    shared = [
        weight
        for weight, first, second in zip(weights, *reached, strict=True)
        if first is not None and second is not None
    ]
    return shared[-1] if shared else None


def _ours(module: Any) -> MultiTaskModule:
    if not isinstance(module, MultiTaskModule):
        raise TypeError(f"expected a MultiTaskModule, got {type(module).__name__}")
    return module
