"""Stops a run, or skips a step, before numbers that are not finite reach the weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from datamodules.core.errors import TrainingError
from datamodules.reader import DatasetReader
from lightning_app.config import NonFinite
from models.distributed import largest_over_ranks, ranks
from models.module import MultiTaskModule
from models.training.step_losses import StepLoss

log = logging.getLogger(__name__)

_FILES = 8
"""Source files named in a message; a batch can hold hundreds."""


class NonFiniteGuard(Callback):
    """Looks at losses and gradients before every optimizer step.

    The losses of a step and the norm of its gradient are one number on the device, and reading it
    is the only wait; all ranks decide alike. Under 16-mixed precision a gradient that is not
    finite is the scaler's business and only losses count.

    Args:
        datasets: of the training, by name; their stores know the source files.
        answer: what to do.

    Attributes:
        skipped: optimizer steps left out so far, resumed ones included.
    """

    def __init__(self, datasets: Mapping[str, DatasetReader], answer: NonFinite) -> None:
        self.datasets = datasets
        self.answer = answer
        self.skipped = 0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Let the step happen, or not.

        Raises:
            TrainingError: a number is not finite, and skipping was not asked for.
        """
        module = pl_module
        if not isinstance(module, MultiTaskModule):
            raise TypeError(f"expected a MultiTaskModule, got {type(module).__name__}")
        losses = module.step_losses
        scaled = str(trainer.precision) == "16-mixed"
        values = [loss.value for loss in losses]
        bad = not_finite(values, [] if scaled else gradients(optimizer))
        if not float(largest_over_ranks(bad)):
            return
        told = self._told(trainer.global_step, module, losses)
        if self.answer is NonFinite.stop:
            raise TrainingError(
                f"{told}. Nothing of this step reached the weights; lower optim.encoder_lr and "
                "optim.head_lr, set optim.clip_norm, train with trainer.precision=32-true, or set "
                "trainer.non_finite=skip to leave such steps out"
            )
        self.skipped += 1
        log.warning("%s; the step is left out (%d so far)", told, self.skipped)
        optimizer.zero_grad(set_to_none=True)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count what was left out, in the log."""
        if self.skipped:
            pl_module.log("train/skipped_steps", float(self.skipped))

    def state_dict(self) -> dict[str, Any]:
        """The counter."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The counter."""
        self.skipped = int(state_dict["skipped"])

    def _told(self, step: int, module: MultiTaskModule, losses: list[StepLoss]) -> str:
        """What is wrong, on which files; called on all ranks."""
        if float(largest_over_ranks(not_finite([loss.value for loss in losses], []))):
            found = [loss for loss in losses if not loss.value.isfinite()]
        else:
            # Heads do not mix: the task at fault is the one whose head has no finite gradient.
            found = [loss for loss in losses if not _has_finite_gradient(module, loss)]
        if not found:
            where = "of another rank" if ranks() > 1 else "of the shared layers"
            return f"step {step}: a loss or gradient {where} is not finite"
        return f"step {step}: {'; '.join(self._line(loss) for loss in found)}"

    def _line(self, loss: StepLoss) -> str:
        value = float(loss.value)
        what = f"the loss of {loss.spec.key} is {value}"
        if math.isfinite(value):
            what = f"the gradient of {loss.spec.key} is not finite"
        store = self.datasets[loss.spec.dataset].store
        files = list(dict.fromkeys(store.source(int(image)) for image in loss.images))
        more = f" and {len(files) - _FILES} more" if len(files) > _FILES else ""
        return f"{what}, on {', '.join(files[:_FILES])}{more}"


def _has_finite_gradient(module: MultiTaskModule, loss: StepLoss) -> bool:
    head = module.model.head(loss.spec)
    return all(bool(p.grad.isfinite().all()) for p in head.parameters() if p.grad is not None)


def not_finite(losses: list[Tensor], grads: list[Tensor]) -> Tensor:
    """1 on the device where any number is not finite, else 0; nothing waits for it."""
    numbers = list(losses)
    if grads:
        norm = torch.nn.utils.get_total_norm(grads)
        numbers.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    return (~torch.isfinite(torch.stack([n.detach().float() for n in numbers]))).any().float()


def gradients(optimizer: Optimizer) -> list[Tensor]:
    """Every gradient that the optimizer is about to apply."""
    groups = optimizer.param_groups
    return [p.grad for group in groups for p in group["params"] if p.grad is not None]
