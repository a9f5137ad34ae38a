"""When checkpoints are written, and where."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from lightning_app.config import Config


def checkpoint_callbacks(config: Config, folder: Path) -> list[Callback]:
    """Checkpoints by epoch, by optimizer step and by the clock, all in `checkpoints/`.

    `last.ckpt` is the newest state, to resume from.
    """
    place = {"dirpath": folder / "checkpoints", "save_weights_only": False}
    settings = config.trainer
    callbacks: list[Callback] = [
        ModelCheckpoint(
            **place, filename="epoch{epoch:03d}", auto_insert_metric_name=False, save_last=True
        )
    ]
    if settings.checkpoint_every:
        callbacks.append(
            ModelCheckpoint(
                **place,
                filename="step{step:07d}",
                auto_insert_metric_name=False,
                every_n_train_steps=settings.checkpoint_every,
            )
        )
    if settings.checkpoint_minutes:
        callbacks.append(
            ModelCheckpoint(
                **place,
                filename="time{step:07d}",
                auto_insert_metric_name=False,
                train_time_interval=timedelta(minutes=settings.checkpoint_minutes),
            )
        )
    return callbacks
