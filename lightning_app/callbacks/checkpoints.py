"""When checkpoints are written, and how a run is told to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from datamodules.core.atomic import atomic_path
from datamodules.core.errors import StoppedError
from lightning_app.run.checkpoint_io import LAST, checkpoints_in
from models.distributed import largest_over_ranks

log = logging.getLogger(__name__)

KEPT = 2
"""Newest checkpoints kept: should one be damaged, there is another."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Checkpoints(Checkpoint):
    """Writes `step<n>.ckpt` by optimizer steps, by the clock, at the end of epochs and on signals.

    `last.ckpt` leads to the newest. SIGTERM, SIGUSR1 and SIGINT end training after the running
    optimizer step with a checkpoint; a second SIGINT ends it at once.

    A checkpoint lies between two micro-batches, when whatever the last one logged is written, or
    at the end of an epoch, after its validation: so a resumed run neither lacks rows nor doubles
    them. Lightning has no hook for the former; the data module calls `between_batches`.

    Args:
        folder: of the checkpoints.
        every_steps: optimizer steps between two checkpoints; 0 is off.
        every_minutes: minutes between two checkpoints; 0 is off.
    """

    def __init__(self, folder: Path, every_steps: int, every_minutes: float) -> None:
        self.folder = folder
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self._signal = 0
        self._step = 0
        self._saved_at = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over from Lightning's handlers, which call the other ranks from within."""
        self._step = trainer.global_step
        self._saved_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:  # the trainer puts back the former ones when it is done
                signal.signal(number, self._note)

    def between_batches(self, trainer: pl.Trainer) -> None:
        """Save or stop where an optimizer step is closed and one of the two is due."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        stop, late = self._agreed(trainer)
        by_steps = self.every_steps and self._step % self.every_steps == 0
        if stop or late or by_steps:
            self._save(trainer)
        if stop:
            raise StoppedError(stop, str(self.folder.parent), self._step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; validation is over."""
        self._step = trainer.global_step
        stop, _ = self._agreed(trainer)
        self._save(trainer)
        if stop:
            raise StoppedError(stop, str(self.folder.parent), self._step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop where a signal came while the final weights were scored; the checkpoint is there."""
        stop, _ = self._agreed(trainer)
        if stop:
            raise StoppedError(stop, str(self.folder.parent), self._step)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal:
            raise KeyboardInterrupt
        self._signal = number

    def _agreed(self, trainer: pl.Trainer) -> tuple[int, bool]:
        """A signal that any rank was sent, and whether the clock asks for a checkpoint."""
        pause = 60 * self.every_minutes
        late = bool(pause) and time.monotonic() - self._saved_at >= pause
        if trainer.world_size == 1:
            return self._signal, late
        device = trainer.strategy.root_device
        both = largest_over_ranks(torch.tensor([self._signal, int(late)], device=device)).tolist()
        return both[0], bool(both[1])

    def _save(self, trainer: pl.Trainer) -> None:
        self._saved_at = time.monotonic()
        path = self.folder / f"step{trainer.global_step:07d}.ckpt"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            point_to(path)
            for old in checkpoints_in(self.folder)[KEPT:]:
                old.unlink()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: what a checkpoint holds does not depend on when others were written."""
        return {}


def point_to(path: Path) -> None:
    """Make `last.ckpt` lead to a checkpoint; at no moment is it missing."""
    with atomic_path(path.with_name(LAST)) as link:
        link.symlink_to(path.name)
