"""Stops a run, or skips a step, before non-finite numbers reach the weights."""

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
from models.distributed import largest_over_ranks, ranks
from models.module import MultiTaskModule
from models.training.step_losses import StepLoss

log = logging.getLogger(__name__)

_MAX_FILES = 8
"""Source files named in a message; a batch can hold hundreds."""


class NonFiniteGuard(Callback):
    """Checks losses and gradients before every optimizer step.

    The losses of a step and the norm of its gradients are reduced to one number on the device, so
    there is one synchronisation; all ranks decide alike. With 16-mixed precision only the losses
    are checked, since the scaler handles non-finite gradients.

    Args:
        datasets: training datasets by name; their stores know the source files.
        policy: "stop" the run or "skip" the step.

    Attributes:
        skipped: optimizer steps skipped so far, those before a resumption included.
    """

    def __init__(self, datasets: Mapping[str, DatasetReader], policy: str) -> None:
        self.datasets = datasets
        self.policy = policy
        self.skipped = 0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: Any, optimizer: Optimizer
    ) -> None:
        """Check the step.

        Raises:
            TrainingError: a number is not finite and the policy is to stop.
        """
        losses: list[StepLoss] = pl_module.step_losses
        groups = optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        scaled = str(trainer.precision) == "16-mixed"
        if not _any_rank(_is_non_finite(losses, [] if scaled else gradients)):
            return
        message = self._describe(trainer.global_step, pl_module, losses)
        if self.policy == "stop":
            raise TrainingError(
                f"{message}. Nothing of this step reached the weights; lower optim.encoder_lr and "
                "optim.head_lr, set optim.clip_norm, train with trainer.precision=32-true, or set "
                "trainer.non_finite=skip to skip such steps"
            )
        self.skipped += 1
        log.warning("%s; the step is skipped (%d so far)", message, self.skipped)
        optimizer.zero_grad(set_to_none=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log the number of skipped steps."""
        if self.skipped:
            pl_module.log("train/skipped_steps", float(self.skipped))

    def state_dict(self) -> dict[str, Any]:
        """Return the counter."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counter."""
        self.skipped = int(state_dict["skipped"])

    def _describe(self, step: int, module: MultiTaskModule, losses: list[StepLoss]) -> str:
        """Name tasks and files at fault; called on all ranks."""
        if _any_rank(_is_non_finite(losses, [])):
            faulty = [loss for loss in losses if not loss.value.isfinite()]
        else:
            # Heads do not mix: the task at fault is the one whose head has a non-finite gradient.
            faulty = [loss for loss in losses if not _has_finite_gradient(module, loss)]
        if not faulty:
            where = "of another rank" if ranks() > 1 else "of the shared layers"
            return f"step {step}: a loss or gradient {where} is not finite"
        return f"step {step}: {'; '.join(self._describe_loss(loss) for loss in faulty)}"

    def _describe_loss(self, loss: StepLoss) -> str:
        value = float(loss.value)
        what = f"the loss of {loss.spec.key} is {value}"
        if math.isfinite(value):
            what = f"the gradient of {loss.spec.key} is not finite"
        store = self.datasets[loss.spec.dataset].store
        files = list(dict.fromkeys(store.source(int(image)) for image in loss.images))
        more = f" and {len(files) - _MAX_FILES} more" if len(files) > _MAX_FILES else ""
        return f"{what}, on {', '.join(files[:_MAX_FILES])}{more}"


def _any_rank(flag: Tensor) -> bool:
    return bool(largest_over_ranks(flag))


def _is_non_finite(losses: list[StepLoss], gradients: list[Tensor]) -> Tensor:
    """Return 1.0 on the device if any number is not finite, else 0.0, without synchronising."""
    numbers = [loss.value for loss in losses]
    if gradients:
        norm = torch.nn.utils.get_total_norm(gradients)
        numbers.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    return (~torch.isfinite(torch.stack([n.detach().float() for n in numbers]))).any().float()


def _has_finite_gradient(module: MultiTaskModule, loss: StepLoss) -> bool:
    head = module.model.head(loss.spec)
    return all(bool(p.grad.isfinite().all()) for p in head.parameters() if p.grad is not None)
