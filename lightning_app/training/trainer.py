"""Lightning's trainer, configured for a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback

from datamodules.core.errors import ConfigError
from datamodules.multitask import MultiTaskDataModule
from lightning_app.config import Config
from lightning_app.loggers.build import build_loggers
from lightning_app.run.checkpoint_io import AtomicCheckpointIO
from lightning_app.run.processes import devices_and_nodes, strategy


def build_trainer(
    config: Config,
    folder: Path,
    stream: MultiTaskDataModule,
    callbacks: list[Callback],
    origin: Mapping[str, Any],
) -> pl.Trainer:
    """Build the trainer of a run in its folder.

    Raises:
        ConfigError: devices or strategy that Lightning does not know or this machine lacks.
    """
    settings = config.trainer
    devices, nodes = devices_and_nodes(settings)
    try:
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy(settings),
            plugins=[AtomicCheckpointIO()],
            precision=precision(config),
            sync_batchnorm=settings.sync_batchnorm,
            max_epochs=settings.epochs,
            accumulate_grad_batches=stream.micro_batches_per_step,
            gradient_clip_val=config.optim.clip_norm or None,
            log_every_n_steps=settings.log_every,
            check_val_every_n_epoch=settings.val_every,  # and `LastEpoch`
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # Lightning's would repeat and restart the order
            logger=build_loggers(config, folder, origin),
            callbacks=callbacks,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            benchmark=True,
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        # Lightning checks devices, strategy and precision against each other and this machine.
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error


def on_gpu(config: Config) -> bool:
    """Whether a recipe trains on a GPU here."""
    return torch.cuda.is_available() and config.trainer.accelerator != "cpu"


def precision(config: Config) -> Literal["bf16-mixed", "16-mixed", "32-true"]:
    """Return the precision of a training on this machine."""
    if config.trainer.precision == "auto":
        return "bf16-mixed" if on_gpu(config) else "32-true"
    return config.trainer.precision


def check_sharding(config: Config) -> None:
    """Refuse settings that a sharded training does not support.

    Raises:
        ConfigError: a setting needs whole weights on one rank during training.
    """
    if config.trainer.strategy != "fsdp":
        return
    for refused, remedy in (
        (config.optim.ema_decay > 0, "optim.ema_decay=0: sharded weights are not averaged"),
        (config.probe.every > 0, "probe.every=0: no rank has the whole encoder before the end"),
        (config.model.compile, "model.compile=false: it does not work with sharding"),
        (config.trainer.precision == "16-mixed", "trainer.precision=bf16-mixed or 32-true"),
    ):
        if refused:
            raise ConfigError(f"trainer.strategy=fsdp: set {remedy}")
