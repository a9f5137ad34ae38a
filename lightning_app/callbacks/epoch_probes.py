"""Probes while training goes on: what the encoder is worth after so many epochs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng

from datamodules.base import PathologyDataModule
from datamodules.core.errors import UserError
from datamodules.reader import DatasetReader
from evaluation.probe.during_training import COURSE, keep_course, probe_within
from lightning_app.config import Config
from lightning_app.run.encoders import feature_cache, load_baselines
from models.distributed import is_sharded
from models.inference.frozen_encoder import FrozenEncoder, freeze
from models.module import MultiTaskModule

log = logging.getLogger(__name__)

PATIENCE = timedelta(days=7)
"""How long ranks wait for a probe. Whoever waits for a rank that died is told at once."""


class ProbeEpochs(Callback):
    """Probes the encoder every few epochs, keeps `probe_course.csv` and logs curves over epochs.

    Rank 0 computes while the others wait. It begins when the epoch's checkpoint is written, so a
    run that is killed meanwhile loses nothing. A probe that fails is told and training goes on.
    The training itself is the same with and without probes, to the last bit.

    Place it before a callback that averages weights: then the averaged ones are probed.

    Args:
        folder: the run's folder.
        config: the run's configuration.
        unseen: the datasets to probe on, prepared.
    """

    def __init__(self, folder: Path, config: Config, unseen: Mapping[str, DatasetReader]) -> None:
        self.folder = folder
        self.config = config
        self.unseen = unseen
        self._whole = True
        self._due = False
        self._frozen: FrozenEncoder | None = None
        self._ranks: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the ranks a way to wait that knows nothing of the training's time-out."""
        self._whole = not is_sharded(pl_module)
        if not self._whole:
            log.warning("no probes while training goes on: FSDP cuts weights into pieces")
        if trainer.world_size > 1:
            self._ranks = dist.new_group(backend="gloo", timeout=PATIENCE)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the encoder where a probe is due: its weights are the averaged ones only here."""
        every, epoch = self.config.probe.every, trainer.current_epoch + 1
        last = epoch - min(self.config.trainer.val_every, self.config.trainer.epochs)
        ends = epoch >= (trainer.max_epochs or 0)  # then the study at the end follows
        self._due = self._whole and not ends and epoch // every > last // every
        if self._due and trainer.is_global_zero:
            if not isinstance(pl_module, MultiTaskModule):
                raise TypeError(f"expected a MultiTaskModule, got {type(pl_module).__name__}")
            self._frozen = freeze(pl_module.model.encoder, self.folder.name)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe what was copied in the epoch before."""
        if not self._due:
            return
        self._due = False
        with others_wait(self._ranks):
            if self._frozen is not None:
                frozen, self._frozen = self._frozen.to(pl_module.device), None
                self._probe(trainer, frozen)

    def _probe(self, trainer: pl.Trainer, frozen: FrozenEncoder) -> None:
        epoch, step, settings = trainer.current_epoch, trainer.global_step, self.config.probe
        with isolate_rng():
            try:
                architecture = str(frozen.facts["timm_name"])
                encoders = [frozen, *load_baselines(self.config, architecture).values()]
                studies = probe_within(
                    settings.every_budget,
                    encoders,
                    [PathologyDataModule(reader=reader) for reader in self.unseen.values()],
                    settings,
                    self.folder,
                    feature_cache(self.config),
                )
                rows = keep_course(self.folder / COURSE, epoch, step, studies)
                mine = rows[rows["encoder"] == frozen.name]
                for logger in trainer.loggers:
                    # Lightning numbers a row by the step that closed it, from 0.
                    logger.log_metrics(course_metrics(mine), step - 1)
                log.info("probes after epoch %d: %s", epoch, told(mine))
            except UserError as error:
                log.warning("no probes after epoch %d: %s; training goes on", epoch, error)
            except Exception:
                # Hours of training are worth more than one probe, whatever is wrong with it.
                log.exception("no probes after epoch %d; training goes on", epoch)


@contextmanager
def others_wait(ranks: Any) -> Iterator[None]:
    """Let all ranks leave together, however long one of them takes.

    Args:
        ranks: a group of all of them, with a time-out of its own; None for a single process.
    """
    try:
        yield
    finally:
        if ranks is not None:
            dist.barrier(ranks)


def course_metrics(rows: pd.DataFrame) -> dict[str, float]:
    """What loggers get: scores and, where there is a baseline, the differences to it."""
    metrics = {}
    for row in rows.itertuples():
        name = f"probe/{row.dataset}/{row.metric}_{row.n_train:g}"
        metrics[name] = float(row.value)
        if pd.notna(row.difference):
            metrics[f"{name}_gain"] = float(row.difference)
    return metrics


def told(rows: pd.DataFrame) -> str:
    """The scores on one line."""
    parts = []
    for (dataset, metric), found in rows.groupby(["dataset", "metric"], sort=False):
        scores = ", ".join(f"{row.value:.3f} with {row.n_train:.0f}" for row in found.itertuples())
        parts.append(f"{dataset} {metric} {scores} labels")
    return " · ".join(parts)
