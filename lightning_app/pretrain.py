"""Runs pretraining from configuration to report."""

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
from datamodules.core.progress import show_nothing
from datamodules.multitask import MultiTaskDataModule
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store_size import require_room
from datamodules.synthetic.forge import forge
from evaluation.study import check_probe, check_recipe
from lightning_app.callbacks.checkpoints import Checkpoints
from lightning_app.callbacks.epoch_probes import ProbeEpochs
from lightning_app.callbacks.final_scores import FinalScores
from lightning_app.callbacks.finish import AveragedWeights, ExportEncoder, ModelCard, ProbeAtEnd
from lightning_app.callbacks.gradient_conflicts import GradientConflicts
from lightning_app.callbacks.monitors import LastEpoch, LearningRates, ShowProgress, Throughput
from lightning_app.callbacks.non_finite import NonFiniteGuard
from lightning_app.callbacks.sample_predictions import ShowPanels
from lightning_app.config import Config
from lightning_app.loggers.build import check_loggers
from lightning_app.loggers.csv_logger import CsvLog
from lightning_app.loggers.wandb_results import finish
from lightning_app.run.folder import RunContext, provenance
from lightning_app.run.probing import check_baselines
from lightning_app.run.processes import exit_with_parent, is_first_process, world_size
from lightning_app.run.resume import CHECKPOINTS, open_run
from lightning_app.training.error_messages import explain
from lightning_app.training.trainer import build_trainer, check_sharding
from models.module import MultiTaskModule
from models.network.encoder import Encoder
from models.sharded_module import Gather, ShardedModule
from models.tasks import TaskSpec
from models.training.optimizer import scaled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A training run, ready to start.

    Attributes:
        folder: folder of its results.
        trainer: Lightning's trainer.
        module: encoder and heads.
        stream: the data.
        checkpoint: checkpoint to continue from; None for a new run.
        probe: the callback that probes the encoder; it records a failure.
    """

    folder: Path
    trainer: pl.Trainer
    module: MultiTaskModule
    stream: MultiTaskDataModule
    checkpoint: Path | None
    probe: ProbeAtEnd


def pretrain(config: Config, folder: Path | None = None) -> Path:
    """Train the shared encoder, export it, probe it, write the report; return the run's folder.

    `folder` is that of an interrupted run to continue; None starts a new one.

    Raises:
        UserError: configuration, data or weights do not fit, training failed for a reason that the
            user can fix, or the probe failed.
    """
    return carry_out(assemble(config, folder))


def carry_out(run: Run) -> Path:
    """Train, export, probe and report an assembled run; return its folder (see `pretrain`)."""
    try:
        run.trainer.fit(
            run.module, datamodule=run.stream, ckpt_path=run.checkpoint, weights_only=True
        )
    except StoppedError:
        finish(run.trainer.loggers)
        raise
    except SystemExit as error:  # Lightning's translation of a KeyboardInterrupt
        raise KeyboardInterrupt from error
    except Exception as error:
        explanation = explain(error)
        if explanation is None:
            raise
        raise explanation from error
    finish(run.trainer.loggers)
    if run.probe.failure:
        hint = (
            f"the encoder is kept in {run.folder}: probe again with "
            f"`python -m lightning_app probe {run.folder} --out {run.folder}`"
        )
        if isinstance(run.probe.failure, UserError):
            raise ProbeError(f"{run.probe.failure}; {hint}") from run.probe.failure
        log.error(hint)
        raise run.probe.failure
    return run.folder


def assemble(config: Config, folder: Path | None = None, watching: Sequence[Callback] = ()) -> Run:
    """Prepare the data and build all parts of a run, a new one or that of a folder.

    Callbacks that only watch are called after the run's own.

    Raises:
        UserError: configuration, data or weights do not fit.
    """
    started = time.monotonic()
    check_loggers(config)
    check_sharding(config)
    exit_with_parent()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    unseen = {name: build(name, entry, config.data) for name, entry in config.data.unseen.items()}
    stream = MultiTaskDataModule(
        config.data, config.trainer.steps_per_epoch, config.trainer.rounds_per_step
    )
    prepare_data(list(stream.datasets.values()), list(unseen.values()), config)
    stream.plan()  # report an impossible order before anything is built or written
    module = build_module(config, stream)

    is_new = folder is None
    folder, checkpoint, steps = open_run(config, folder)
    origin = provenance(config, stream.datasets, unseen)
    if not is_first_process():
        show_nothing()
    else:
        write_json(folder / "provenance.json", origin)
        for name, dataset in origin["datasets"].items():
            for caution in dataset.get("cautions", ()):
                log.warning("%s: %s", name, caution)
    stream.resumed_steps = steps
    probe = ProbeAtEnd(RunContext(config, folder, unseen, origin, started))
    callbacks = [*build_callbacks(stream, probe), *watching]
    try:
        trainer = build_trainer(config, folder, stream, callbacks, origin)
    except ConfigError:
        if is_new and is_first_process():
            shutil.rmtree(folder)
        raise
    for logger in trainer.loggers:
        if isinstance(logger, CsvLog):
            logger.continue_after(steps)
    return Run(folder, trainer, module, stream, checkpoint, probe)


def build_callbacks(stream: MultiTaskDataModule, probe: ProbeAtEnd) -> list[Callback]:
    """Return the callbacks of a run in the order in which Lightning calls them."""
    run, config, folder = probe.run, probe.run.config, probe.run.folder
    settings = config.trainer
    checkpoints = Checkpoints(
        folder / CHECKPOINTS, settings.checkpoint_every, settings.checkpoint_minutes
    )
    stream.between_batches = checkpoints.between_batches
    final = FinalScores(folder)
    return [
        checkpoints,  # Lightning calls checkpoint callbacks last
        Gather(),
        NonFiniteGuard(stream.datasets, settings.non_finite),
        Throughput(settings.log_every),
        LastEpoch(),
        LearningRates("step"),
        *([GradientConflicts(settings.gradients_every)] if settings.gradients_every else []),
        *([ProbeEpochs(run)] if run.unseen and config.probe.every else []),
        ShowProgress(settings.epochs),
        *([AveragedWeights(decay=config.optim.ema_decay)] if config.optim.ema_decay else []),
        ExportEncoder(run),  # before all that may fail
        final,
        ModelCard(run, final),
        ShowPanels(folder, stream.datasets, settings.panel_every, config.seed),
        probe,
    ]


def prepare_data(
    train: Sequence[DatasetReader], unseen: Sequence[DatasetReader], config: Config
) -> None:
    """Check all that needs no data, write missing stores, and check the probes on them.

    Raises:
        UserError: data, splits or baselines do not fit.
    """
    check_overlap(train, unseen, config.probe.allow_overlap)
    if unseen:
        check_recipe(unseen, config.probe)
        check_baselines(config)
    with torch.random.fork_rng(devices=[]):
        Encoder(config.model, config.data.image_size)  # raises where weights or size do not fit
    make_ready([*train, *unseen], config)
    for dataset in unseen:
        check_probe(dataset, config.probe)


def make_ready(datasets: Sequence[DatasetReader], config: Config) -> None:
    """Forge datasets if the configuration asks for it, and write missing stores.

    Forging uses one core, so datasets are forged side by side; preparing is parallel itself.
    """
    absent = {  # one of those that share a folder, at several resolutions for example
        dataset.root: dataset
        for dataset in datasets
        if config.data.forge and not dataset.root.exists()
    }
    if absent:
        if is_first_process():
            log.info("drawing %d synthetic datasets in %s", len(absent), config.data.root)
        work = delayed(forge)
        Parallel(n_jobs=-1)(work(d, config.seed, config.data.forge) for d in absent.values())
    require_room([dataset for dataset in datasets if not dataset.store_path.exists()])
    for dataset in datasets:
        prepare(dataset)


def build_module(config: Config, stream: MultiTaskDataModule) -> MultiTaskModule:
    """Build the encoder with a head for every task of the stream."""
    specs = [
        TaskSpec(
            name, task, dataset.input_mpp(), tuple(dataset.config.class_weights.get(task.name, ()))
        )
        for name, dataset in stream.datasets.items()
        for task in dataset.weighted_tasks()
    ]
    ranks = world_size(config.trainer)
    shares = (plan := stream.plan()).batch_sizes
    rounds, images = config.trainer.rounds_per_step, sum(shares) / len(shares)
    optim = scaled(config.optim, ranks * rounds * images)
    if is_first_process():
        log.info(
            "one optimizer step: %d rounds of %g images per dataset on %d ranks; "
            "learning rates: encoder %g, heads %g%s",
            *(rounds, images, ranks, optim.encoder_lr, optim.head_lr),
            ", scaled to the batch" if optim is not config.optim else "",
        )
    module_class = ShardedModule if config.trainer.strategy == "fsdp" else MultiTaskModule
    module = module_class(
        specs,
        config.model,
        optim,
        image_size=config.data.image_size,
        micro_batches_per_round=stream.micro_batches_per_round,
        stain_strength=config.data.augmentation.stain,
        seed=config.seed,
        color_strength=config.data.augmentation.color,
        blur_probability=config.data.augmentation.blur,
    )
    shared = config.trainer.sync_batchnorm and ranks > 1
    if plan.smallest == 1 and not shared and module.model.encoder.norms_of_one_value():
        where = f"data.batch_size={config.data.batch_size}"
        problem = f"one image leaves the BatchNorm of {config.model.encoder} a single value"
        remedy = "data.batch_size=2, data.tasks_per_batch=0 or model.freeze_norm=true"
        raise ConfigError(f"{where}: {problem}; set {remedy}")
    return module
