"""Speed, progress and learning rates of a training."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from rich.console import Console

from datamodules.core.progress import Work


class Throughput(Callback):
    """Logs images per second and the fraction of time that training waits for data.

    Counted per rank from the second step of an epoch on, because the first one starts the loader,
    and logged every so many optimizer steps.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._images = 0
        self._waited = 0.0
        self._since = 0.0
        self._ended: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the time between epochs."""
        self._ended = None

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Count the time since the last batch ended as waiting."""
        if self._ended is None:
            self._images, self._waited = 0, 0.0
        else:
            self._waited += time.perf_counter() - self._ended

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log at the trainer's own interval."""
        now = time.perf_counter()
        if self._ended is None:
            self._since = now
        else:
            self._images += len(batch.images)
        self._ended = now
        elapsed = now - self._since
        if elapsed > 0 and trainer.global_step % self.every == 0:
            pl_module.log("speed/images_per_second", self._images / elapsed)
            pl_module.log("speed/waiting_for_data", self._waited / elapsed)
            if pl_module.device.type == "cuda":
                used = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
                pl_module.log("speed/gpu_memory_gib", used)


class ShowProgress(Callback):
    """Shows the steps of training and the batches of a validation, and prints a line per epoch.

    Losses and speeds are those of the last row of the log, so the device is not waited for.
    Place it after callbacks that work for long between two epochs.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._started = time.monotonic()
        self._training = self._validation = Work("", "steps")
        self._shown = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()
        steps = int(trainer.estimated_stepping_batches)
        self._training = Work("", "steps", steps, lambda: facts(trainer, "train/loss"))
        self.on_train_epoch_start(trainer, pl_module)  # a run resumed within an epoch starts none

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch."""
        self._shown.close()
        self._training.name = f"epoch {trainer.current_epoch + 1}/{self.epochs}"
        self._shown.enter_context(self._training)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Show the step."""
        self._training.reach(trainer.global_step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the validation in place of the steps."""
        self._shown.close()
        batches = sum(int(number) for number in trainer.num_val_batches)
        self._validation = self._shown.enter_context(Work("validation", "batches", batches))

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Show the batch."""
        self._validation.advance()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Erase its line."""
        self._shown.close()

    def on_exception(self, *args: Any) -> None:
        """Erase the line before the error is printed."""
        self._shown.close()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print epoch, step, losses, speed and time."""
        self._shown.close()
        if trainer.is_global_zero:
            parts = [self._training.name, f"step {trainer.global_step}"]
            parts += facts(trainer, "train/loss", "val/summary")
            parts.append(f"{time.monotonic() - self._started:.0f} s")
            Console(soft_wrap=True, highlight=False).print(" · ".join(parts))


def facts(trainer: pl.Trainer, *losses: str) -> list[str]:
    """Return losses and speeds that were logged last, as text."""
    metrics, parts = trainer.callback_metrics, []
    for key in losses:
        if key in metrics:
            label = "validation" if key.startswith("val") else "loss"
            parts.append(f"{label} {float(metrics[key]):.3f}")
    if "speed/images_per_second" in metrics:
        parts.append(f"{float(metrics['speed/images_per_second']):.0f} images/s")
        parts.append(f"{100 * float(metrics['speed/waiting_for_data']):.0f} % waiting for data")
    return parts


class LastEpoch(Callback):
    """Validates the last epoch, also where `val_every` does not divide the number of epochs."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run resumed within its last epoch does not start that one again."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning reads the number anew for each epoch."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


class LearningRates(LearningRateMonitor):
    """Lightning's monitor, once per optimizer step instead of once per micro-batch."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Log at the beginning of a step."""
        if trainer.fit_loop.epoch_loop.batch_idx % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_start(trainer, *args, **kwargs)
