"""What accompanies training and is not the model's business."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor
from rich.console import Console

from datamodules.base import PathologyDataModule
from datamodules.batch import MultiTaskBatch
from lightning_app.config import Config
from lightning_app.dashboard import log_files, log_probes
from lightning_app.final_scores import FinalScores
from lightning_app.model_card import write_model_card
from lightning_app.probing import load_all, probe_run
from models.export import export_encoder
from models.multitask import MultiTaskModule

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


class AveragedWeights(EMAWeightAveraging):
    """Lightning's average, also where training was over already when the run was resumed."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning skips `on_train_end` when no step is left; doing it twice changes nothing."""
        self.on_train_end(trainer, pl_module)


class ExportEncoder(Callback):
    """Writes encoder and model card when training ends; the averaged weights if there are.

    Place it behind the callback that averages.

    Args:
        folder: the run's folder.
        origin: provenance, kept beside the weights.
        final: scores the same weights; its place is before this one.
    """

    def __init__(self, folder: Path, origin: Mapping[str, Any], final: FinalScores) -> None:
        self.folder = folder
        self.origin = origin
        self.final = final

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank 0 writes; the weights are the same on all ranks."""
        if trainer.is_global_zero:
            if not isinstance(pl_module, MultiTaskModule):
                raise TypeError(f"expected a MultiTaskModule, got {type(pl_module).__name__}")
            scores, splits = self.final.scores, self.final.splits
            facts = {**self.origin, "scores": scores, "scored_on": splits}
            export_encoder(pl_module, self.folder, facts)
            write_model_card(self.folder, self.origin, scores, splits)


class ProbeAtEnd(Callback):
    """Probes the exported encoder and writes the report.

    It runs in `on_fit_end`, after the last collective call: the other ranks may leave while
    rank 0 computes, so no time-out can strike. Whatever fails here leaves the training result
    as it is.

    Args:
        folder: the run's folder.
        config: the run's configuration.
        unseen: the datasets to probe on, prepared.
        origin: provenance of the run.
        started: `time.monotonic()` at the start of the run.

    Attributes:
        failure: why the probe could not be done, else None.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        unseen: Mapping[str, PathologyDataModule],
        origin: dict[str, Any],
        started: float,
    ) -> None:
        self.folder = folder
        self.config = config
        self.unseen = unseen
        self.origin = origin
        self.started = started
        self.failure: Exception | None = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe on rank 0."""
        if not trainer.is_global_zero:
            return
        try:
            encoders, baseline = load_all([str(self.folder)], self.config)
            probe_run(
                self.folder,
                encoders,
                self.config,
                self.unseen,
                self.origin,
                self.started,
                baseline,
            )
            if self.unseen:
                log_probes(trainer.loggers, self.folder)
        except Exception as error:
            # Whatever it is, the encoder is on the disk and the W&B run ends well; `pretrain`
            # raises it then.
            self.failure = error
        log_files(trainer.loggers, self.folder)
