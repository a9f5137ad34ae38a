"""When checkpoints are written, and where."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path

from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from lightning_app.config import Config


def checkpoint_callbacks(config: Config, folder: Path) -> list[Callback]:
    """Checkpoints by epoch, by optimizer step and by the clock, all in `checkpoints/`.

    `last.ckpt` is the newest state, to resume from.
    """
    keep_newest = partial(
        ModelCheckpoint, dirpath=folder / "checkpoints", auto_insert_metric_name=False
    )
    settings = config.trainer
    callbacks: list[Callback] = [keep_newest(filename="epoch{epoch:03d}", save_last=True)]
    if settings.checkpoint_every:
        every = settings.checkpoint_every
        callbacks.append(keep_newest(filename="step{step:07d}", every_n_train_steps=every))
    if settings.checkpoint_minutes:
        pause = timedelta(minutes=settings.checkpoint_minutes)
        callbacks.append(keep_newest(filename="time{step:07d}", train_time_interval=pause))
    return callbacks
