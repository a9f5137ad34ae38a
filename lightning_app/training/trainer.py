"""Lightning's trainer, set up for a run."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback

from datamodules.core.errors import ConfigError
from datamodules.multitask import MultiTaskDataModule
from lightning_app.config import Config
from lightning_app.loggers.build import build_loggers
from lightning_app.run.checkpoint_io import AtomicCheckpointIO
from lightning_app.run.processes import devices_and_nodes, strategy, world_size


def build_trainer(
    config: Config,
    folder: Path,
    stream: MultiTaskDataModule,
    callbacks: list[Callback],
    origin: dict[str, object],
) -> pl.Trainer:
    """Lightning's trainer with what this project needs of it.

    Raises:
        ConfigError: devices or strategy that Lightning does not know or this machine lacks.
    """
    settings = config.trainer
    devices, nodes = devices_and_nodes(settings)
    ranks = world_size(devices, nodes, settings.accelerator)
    try:
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy(settings.strategy, ranks),
            plugins=[AtomicCheckpointIO()],
            precision=settings.precision,
            sync_batchnorm=settings.sync_batchnorm,
            max_epochs=settings.epochs,
            accumulate_grad_batches=stream.micro_batches_per_step,
            gradient_clip_val=config.optim.clip_norm or None,
            log_every_n_steps=settings.log_every,
            check_val_every_n_epoch=min(settings.val_every, settings.epochs),
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


def check_sharding(config: Config) -> None:
    """Refuse what a sharded training cannot do.

    Raises:
        ConfigError: a setting that needs whole weights on one rank while training goes on.
    """
    if config.trainer.strategy != "fsdp":
        return
    for set_so, told in (
        (config.optim.ema_decay > 0, "optim.ema_decay=0: sharded weights are not averaged"),
        (config.probe.every > 0, "probe.every=0: no rank has the whole encoder before the end"),
        (config.model.compile, "model.compile=false: not together with sharding"),
        (config.trainer.precision == "16-mixed", "trainer.precision=bf16-mixed or 32-true"),
    ):
        if set_so:
            raise ConfigError(f"trainer.strategy=fsdp: set {told}")
