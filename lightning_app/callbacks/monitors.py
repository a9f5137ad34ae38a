"""What accompanies training and is not the model's business."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from rich.console import Console

from datamodules.stream.batch import MultiTaskBatch

log = logging.getLogger(__name__)


class Throughput(Callback):
    """Logs images per second and the share of time that training waits for data.

    Counted per rank from the second step of an epoch on; the first one starts the loader.

    Args:
        every: optimizer steps between two rows of the log.
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

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The time since the last batch ended was spent waiting."""
        now = time.perf_counter()
        if self._ended is None:
            self._images, self._waited, self._since = 0, 0.0, now
        else:
            self._waited += now - self._ended

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: MultiTaskBatch,
        batch_idx: int,
    ) -> None:
        """Log at the trainer's own interval."""
        now = time.perf_counter()
        if self._ended is not None:
            self._images += len(batch.images)
        else:
            self._since = now
        self._ended = now
        elapsed = now - self._since
        if elapsed > 0 and trainer.global_step % self.every == 0:
            pl_module.log("speed/images_per_second", self._images / elapsed)
            pl_module.log("speed/waiting_for_data", self._waited / elapsed)
            if pl_module.device.type == "cuda":
                import torch

                used = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
                pl_module.log("speed/gpu_memory_gib", used)


class EpochLine(Callback):
    """Prints one line per epoch: readable in a terminal and in a batch system's log."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._started = time.monotonic()
        self._console = Console(soft_wrap=True, highlight=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print where the run stands."""
        if not trainer.is_global_zero:
            return
        seen = trainer.callback_metrics
        parts = [f"epoch {trainer.current_epoch + 1}/{self.epochs}", f"step {trainer.global_step}"]
        for label, key in (("loss", "train/loss"), ("validation", "val/summary")):
            if key in seen:
                parts.append(f"{label} {float(seen[key]):.3f}")
        if "speed/images_per_second" in seen:
            parts.append(f"{float(seen['speed/images_per_second']):.0f} images/s")
            parts.append(f"{100 * float(seen['speed/waiting_for_data']):.0f} % waiting for data")
        parts.append(f"{time.monotonic() - self._started:.0f} s")
        self._console.print(" · ".join(parts))


class LearningRates(LearningRateMonitor):
    """Lightning's monitor, once per optimizer step and not once per micro-batch of it."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Log where a step begins."""
        if trainer.fit_loop.epoch_loop.batch_idx % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_start(trainer, *args, **kwargs)
