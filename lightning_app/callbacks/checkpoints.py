"""When checkpoints are written, and how a signal stops a run."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from datamodules.core.atomic import atomic_path
from datamodules.core.disk_space import require_space
from datamodules.core.errors import StoppedError
from lightning_app.run.checkpoint_io import LAST, checkpoints_in
from models.distributed import largest_over_ranks

KEPT = 2
"""Number of checkpoints kept: if the newest is damaged, there is another."""

ADAM = 3
"""Size of a checkpoint over that of the weights: the optimizer keeps two numbers for each."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Checkpoints(Checkpoint):
    """Writes `step<n>.ckpt` by optimizer steps, by the clock, at the end of epochs and on signals.

    `last.ckpt` links to the newest. SIGTERM, SIGUSR1 and SIGINT end training with a checkpoint
    after the current optimizer step; a second SIGINT ends it at once.

    A checkpoint is written between two micro-batches, after the metrics of the last one, or at the
    end of an epoch, after its validation. A resumed run therefore neither lacks nor repeats rows.
    Lightning has no hook for the former, so the data module calls `between_batches`.

    Args:
        folder: folder of the checkpoints.
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
        """Check the room on the disk, and replace Lightning's signal handlers.

        Those run collective calls inside the handler.

        Raises:
            DiskError: the checkpoints do not fit.
        """
        missing = max(1, KEPT + 1 - len(checkpoints_in(self.folder)))  # the newest comes beside
        each = sum(w.nbytes * (ADAM if w.requires_grad else 1) for w in pl_module.parameters())
        require_space(self.folder, missing * each, "make room, or set out= to a larger disk")
        self._step = trainer.global_step
        self._saved_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:  # the trainer restores the previous handlers afterwards
                signal.signal(number, self._remember)

    def between_batches(self, trainer: pl.Trainer) -> None:
        """Save or stop after an optimizer step if one of the two is due."""
        if trainer.global_step != self._step:
            by_steps = self.every_steps and trainer.global_step % self.every_steps == 0
            self._save_or_stop(trainer, bool(by_steps))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; validation is over."""
        self._save_or_stop(trainer, due=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if a signal arrived while the final weights were scored; they are saved already."""
        self._stop(self._agree(trainer)[0])

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal:
            raise KeyboardInterrupt
        self._signal = number

    def _save_or_stop(self, trainer: pl.Trainer, due: bool) -> None:
        self._step = trainer.global_step
        number, late = self._agree(trainer)
        if due or late or number:
            self._save(trainer)
        self._stop(number)

    def _agree(self, trainer: pl.Trainer) -> tuple[int, bool]:
        """Return a signal that any rank received, and whether a checkpoint is due by the clock."""
        pause = 60 * self.every_minutes
        late = bool(pause) and time.monotonic() - self._saved_at >= pause
        if trainer.world_size == 1:
            return self._signal, late
        device = trainer.strategy.root_device
        both = largest_over_ranks(torch.tensor([self._signal, int(late)], device=device)).tolist()
        return both[0], bool(both[1])

    def _stop(self, number: int) -> None:
        if number:
            raise StoppedError(number, str(self.folder.parent), self._step)

    def _save(self, trainer: pl.Trainer) -> None:
        self._saved_at = time.monotonic()
        path = self.folder / f"step{trainer.global_step:07d}.ckpt"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            with atomic_path(self.folder / LAST) as link:
                link.symlink_to(path.name)
            for old in checkpoints_in(self.folder)[KEPT:]:
                old.unlink()
