"""Speed, progress and learning rates of a training."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from rich.console import Console


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


class EpochLine(Callback):
    """Prints one line per epoch, readable in a terminal and in a batch system's log."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._started = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print epoch, step, losses, speed and time."""
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        parts = [f"epoch {trainer.current_epoch + 1}/{self.epochs}", f"step {trainer.global_step}"]
        for label, key in (("loss", "train/loss"), ("validation", "val/summary")):
            if key in metrics:
                parts.append(f"{label} {float(metrics[key]):.3f}")
        if "speed/images_per_second" in metrics:
            parts.append(f"{float(metrics['speed/images_per_second']):.0f} images/s")
            parts.append(f"{100 * float(metrics['speed/waiting_for_data']):.0f} % waiting for data")
        parts.append(f"{time.monotonic() - self._started:.0f} s")
        Console(soft_wrap=True, highlight=False).print(" · ".join(parts))


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
