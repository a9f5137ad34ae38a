"""The pretraining run, from configuration to report. It reads like the story of the run."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from joblib import Parallel, delayed
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger

from datamodules.base import PathologyDataModule
from datamodules.errors import ConfigError, ProbeError, TrainingError, UserError
from datamodules.forge import forge
from datamodules.leakage import check_overlap
from datamodules.multitask import MultiTaskDataModule
from datamodules.prepare import prepare
from datamodules.registry import build
from evaluation.study import check_probe
from lightning_app.callbacks import EpochLine, ExportEncoder, ProbeAtEnd, Throughput
from lightning_app.checkpoints import checkpoint_callbacks
from lightning_app.config import Config
from lightning_app.dashboard import finish
from lightning_app.epoch_probes import ProbeEpochs
from lightning_app.final_scores import FinalScores
from lightning_app.gradients import GradientConflicts
from lightning_app.loggers import build_loggers
from lightning_app.panels import ShowPanels
from lightning_app.probing import check_baselines
from lightning_app.resume import continue_csv, newest_checkpoint, optimizer_steps
from lightning_app.run_folder import create_run_folder, provenance, write_json
from models.multitask import MultiTaskModule, TaskSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A training run, ready to start.

    Attributes:
        folder: where its results go.
        trainer: Lightning's trainer.
        module: encoder and heads.
        stream: the data.
        checkpoint: to go on from; None at the beginning.
    """

    folder: Path
    trainer: pl.Trainer
    module: MultiTaskModule
    stream: MultiTaskDataModule
    checkpoint: Path | None


def pretrain(config: Config, folder: Path | None = None) -> Path:
    """Train the shared encoder, export it, probe it and write the report.

    Args:
        config: everything about the run.
        folder: of an interrupted run to go on with; None starts a new one.

    Returns:
        The run's folder.

    Raises:
        UserError: configuration, data or weights do not fit; nothing was trained.
    """
    run = assemble(config, folder)
    try:
        run.trainer.fit(
            run.module, datamodule=run.stream, ckpt_path=run.checkpoint, weights_only=True
        )
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "out of memory on the device; lower data.batch_size or data.tasks_per_batch, "
            "or set model.grad_checkpointing=true"
        ) from error
    finish(run.trainer.loggers)
    if run.trainer.interrupted:
        raise KeyboardInterrupt
    for callback in run.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ProbeAtEnd) and callback.failure:
            kept = (
                f"the encoder is kept in {run.folder}: probe again with "
                f"`python -m lightning_app probe {run.folder} --out {run.folder}`"
            )
            if isinstance(callback.failure, UserError):
                raise ProbeError(f"{callback.failure}; {kept}") from callback.failure
            log.error(kept)
            raise callback.failure
    return run.folder


def assemble(config: Config, folder: Path | None = None) -> Run:
    """Prepare the data and build everything that a run needs.

    Args:
        config: everything about the run.
        folder: of an interrupted run to go on with; None makes a new one.

    Raises:
        UserError: configuration, data or weights do not fit.
    """
    started = time.monotonic()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    unseen = {name: build(name, entry, config.data) for name, entry in config.data.unseen.items()}
    stream = MultiTaskDataModule(
        config.data, config.trainer.steps_per_epoch, config.trainer.rounds_per_step
    )
    check_overlap(list(stream.datasets.values()), list(unseen.values()), config.probe.allow_overlap)
    make_ready([*stream.datasets.values(), *unseen.values()], config)
    if unseen:
        check_baselines(config)
    for dataset in unseen.values():
        check_probe(dataset, config.probe)
    stream.plan()  # an order that cannot be had is told before anything is built or written
    module = build_module(config, stream)

    checkpoint = newest_checkpoint(folder) if folder else None
    folder = folder or create_run_folder(config)
    origin = provenance(config, stream.datasets, unseen)
    if is_first_process():
        write_json(folder / "provenance.json", origin)
    callbacks: list[Callback] = [
        *checkpoint_callbacks(config, folder),
        Throughput(config.trainer.log_every),
        EpochLine(config.trainer.epochs),
        LearningRateMonitor("step"),
        *([GradientConflicts(every)] if (every := config.trainer.gradients_every) else []),
        *([ProbeEpochs(folder, config, unseen)] if unseen and config.probe.every else []),
        ShowPanels(folder, stream.datasets, config.trainer.panel_every, config.seed),
        *([EMAWeightAveraging(decay=config.optim.ema_decay)] if config.optim.ema_decay else []),
        final := FinalScores(folder),
        ExportEncoder(folder, origin, final),
        ProbeAtEnd(folder, config, unseen, origin, started),
    ]
    try:
        trainer = build_trainer(config, folder, stream, callbacks, origin)
    except ConfigError:
        if checkpoint is None and is_first_process():
            shutil.rmtree(folder)
        raise
    if checkpoint and is_first_process():
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                continue_csv(logger, optimizer_steps(checkpoint))
    return Run(folder, trainer, module, stream, checkpoint)


def make_ready(datasets: Sequence[PathologyDataModule], config: Config) -> None:
    """Forge where that is asked for, and write the stores that are missing.

    Forging draws on one core, so datasets are forged side by side; preparing is parallel itself.
    """
    if config.data.forge:
        absent = [dataset for dataset in datasets if not dataset.root.exists()]
        if absent and is_first_process():
            log.info("drawing %d synthetic datasets in %s", len(absent), config.data.root)
        work = delayed(forge)
        Parallel(n_jobs=-1)(work(d, config.seed, config.data.forge) for d in absent)
    for dataset in datasets:
        prepare(dataset)


def build_module(config: Config, stream: MultiTaskDataModule) -> MultiTaskModule:
    """The encoder with a head for every task of the stream."""
    specs = [
        TaskSpec(
            name, task, dataset.input_mpp(), tuple(dataset.config.class_weights.get(task.name, ()))
        )
        for name, dataset in stream.datasets.items()
        for task in dataset.weighted_tasks()
    ]
    return MultiTaskModule(
        specs,
        config.model,
        config.optim,
        image_size=config.data.image_size,
        micro_batches_per_round=stream.micro_batches_per_round,
        stain_strength=config.data.augmentation.stain,
        seed=config.seed,
    )


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
    devices: int | str = int(settings.devices) if settings.devices.isdigit() else settings.devices
    if devices == "auto" and not torch.cuda.is_available():
        devices = 1
    try:
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=settings.nodes,
            strategy=settings.strategy,
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


def is_first_process() -> bool:
    """Whether this is the process that talks: rank 0 under every launcher."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))
