"""The pretraining run, from configuration to report. It reads like the story of the run."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from joblib import Parallel, delayed
from pytorch_lightning.callbacks import Callback

from datamodules.checks.leakage import check_overlap
from datamodules.core.atomic import write_json
from datamodules.core.errors import ConfigError, ProbeError, StoppedError, UserError
from datamodules.multitask import MultiTaskDataModule
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.synthetic.forge import forge
from evaluation.study import check_probe
from lightning_app.callbacks.checkpoints import Checkpoints
from lightning_app.callbacks.epoch_probes import ProbeEpochs
from lightning_app.callbacks.final_scores import FinalScores
from lightning_app.callbacks.finish import AveragedWeights, ExportEncoder, ProbeAtEnd
from lightning_app.callbacks.gradient_conflicts import GradientConflicts
from lightning_app.callbacks.monitors import EpochLine, LearningRates, Throughput
from lightning_app.callbacks.non_finite import NonFiniteGuard
from lightning_app.callbacks.sample_predictions import ShowPanels
from lightning_app.config import Config
from lightning_app.loggers.build import check_loggers
from lightning_app.loggers.csv_logger import CsvLog
from lightning_app.loggers.wandb_results import finish
from lightning_app.run.encoders import check_baselines
from lightning_app.run.folder import provenance
from lightning_app.run.processes import (
    devices_and_nodes,
    is_first_process,
    leave_with_the_first,
    world_size,
)
from lightning_app.run.resume import FOLDER, settle
from lightning_app.training.error_messages import explained
from lightning_app.training.trainer import build_trainer, check_sharding
from models.module import MultiTaskModule, TaskSpec
from models.sharded_module import Gather, ShardedModule
from models.training.optimizer import scaled

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
    except StoppedError:
        finish(run.trainer.loggers)
        raise
    except SystemExit as error:  # what Lightning makes of a KeyboardInterrupt
        raise KeyboardInterrupt from error
    except Exception as error:
        told = explained(error)
        if told is None:
            raise
        raise told from error
    finish(run.trainer.loggers)
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
    check_loggers(config)
    check_sharding(config)
    leave_with_the_first()
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

    fresh = folder is None
    folder, checkpoint, steps = settle(config, folder)
    origin = provenance(config, stream.datasets, unseen)
    if is_first_process():
        write_json(folder / "provenance.json", origin)
    saving = Checkpoints(
        folder / FOLDER, config.trainer.checkpoint_every, config.trainer.checkpoint_minutes
    )
    stream.between_batches = saving.between_batches
    stream.resumed_steps = steps
    callbacks: list[Callback] = [
        saving,  # Lightning calls it last
        Gather(),
        NonFiniteGuard(stream.datasets, config.trainer.non_finite),
        Throughput(config.trainer.log_every),
        EpochLine(config.trainer.epochs),
        LearningRates("step"),
        *([GradientConflicts(every)] if (every := config.trainer.gradients_every) else []),
        *([ProbeEpochs(folder, config, unseen)] if unseen and config.probe.every else []),
        ShowPanels(folder, stream.datasets, config.trainer.panel_every, config.seed),
        *([AveragedWeights(decay=config.optim.ema_decay)] if config.optim.ema_decay else []),
        final := FinalScores(folder),
        ExportEncoder(folder, origin, final),
        ProbeAtEnd(folder, config, unseen, origin, started),
    ]
    try:
        trainer = build_trainer(config, folder, stream, callbacks, origin)
    except ConfigError:
        if fresh and is_first_process():
            shutil.rmtree(folder)
        raise
    for logger in trainer.loggers:
        if isinstance(logger, CsvLog):
            logger.continue_after(steps)
    return Run(folder, trainer, module, stream, checkpoint)


def make_ready(datasets: Sequence[DatasetReader], config: Config) -> None:
    """Forge where that is asked for, and write the stores that are missing.

    Forging draws on one core, so datasets are forged side by side; preparing is parallel itself.
    """
    if config.data.forge:
        absent = [dataset for dataset in datasets if not dataset.root.exists()]
        if absent and is_first_process():
            log.info("drawing %d synthetic datasets in %s", len(absent), config.data.root)
        if absent:
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
    ranks = world_size(*devices_and_nodes(config.trainer), config.trainer.accelerator)
    rounds, images = config.trainer.rounds_per_step, config.data.batch_size
    optim = scaled(config.optim, ranks * rounds * images)
    if is_first_process():
        log.info(
            "one optimizer step: %d rounds of %d images per dataset on %d ranks; "
            "learning rates: encoder %g, heads %g%s",
            *(rounds, images, ranks, optim.encoder_lr, optim.head_lr),
            ", scaled to the batch" if optim is not config.optim else "",
        )
    kind = ShardedModule if config.trainer.strategy == "fsdp" else MultiTaskModule
    return kind(
        specs,
        config.model,
        optim,
        image_size=config.data.image_size,
        micro_batches_per_round=stream.micro_batches_per_round,
        stain_strength=config.data.augmentation.stain,
        seed=config.seed,
    )
