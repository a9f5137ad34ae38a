"""Probes during training: how good the encoder's features are after so many epochs."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng

from datamodules.base import PathologyDataModule
from datamodules.core.errors import UserError
from evaluation.probe.during_training import COURSE, keep_course, probe_within
from lightning_app.run.folder import RunContext
from lightning_app.run.probing import feature_cache, load_baselines
from models.distributed import is_sharded
from models.inference.frozen_encoder import FrozenEncoder
from models.inference.loading import freeze

log = logging.getLogger(__name__)

PROBE_TIMEOUT = timedelta(days=7)
"""How long ranks wait for a probe. If a rank dies, the others learn of it at once all the same."""


class ProbeEpochs(Callback):
    """Probes the encoder every few epochs, writes `probe_course.csv` and logs curves over epochs.

    Rank 0 computes while the others wait. It starts after the epoch's checkpoint is written, so a
    run that is killed during the probe loses nothing. A failed probe is logged; training continues,
    and its result is bit-identical with and without probes.

    Place it before a callback that averages weights, so that the averaged ones are probed.

    Args:
        run: the run.
    """

    def __init__(self, run: RunContext) -> None:
        self.run = run
        self._sharded = False
        self._due = False
        self._frozen: FrozenEncoder | None = None
        self._ranks: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Create a process group without the short timeout of training."""
        self._sharded = is_sharded(pl_module)
        if self._sharded:
            log.warning("no probes during training: FSDP shards the encoder's weights")
        if trainer.world_size > 1:
            self._ranks = dist.new_group(backend="gloo", timeout=PROBE_TIMEOUT)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Copy the encoder if a probe is due: only here does it hold the averaged weights."""
        config, epoch = self.run.config, trainer.current_epoch + 1
        previous = epoch - min(config.trainer.val_every, config.trainer.epochs)
        every = config.probe.every
        last = epoch >= (trainer.max_epochs or 0)  # the final study follows
        self._due = not self._sharded and not last and epoch // every > previous // every
        if self._due and trainer.is_global_zero:
            self._frozen = freeze(pl_module.model.encoder, self.run.folder.name)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe the copy from the previous epoch."""
        if not self._due:
            return
        self._due = False
        try:
            if self._frozen is not None:
                frozen, self._frozen = self._frozen.to(pl_module.device), None
                self._probe(trainer, frozen)
        finally:
            if self._ranks is not None:
                dist.barrier(self._ranks)

    def _probe(self, trainer: pl.Trainer, frozen: FrozenEncoder) -> None:
        epoch, step, config = trainer.current_epoch, trainer.global_step, self.run.config
        with isolate_rng():
            try:
                architecture = str(frozen.facts["timm_name"])
                studies = probe_within(
                    config.probe.every_budget,
                    [frozen, *load_baselines(config, architecture).values()],
                    [PathologyDataModule(reader=reader) for reader in self.run.unseen.values()],
                    config.probe,
                    self.run.folder,
                    feature_cache(config),
                )
                table = keep_course(self.run.folder / COURSE, epoch, step, studies)
                rows = table[table["encoder"] == frozen.name]
                for logger in trainer.loggers:
                    # Lightning numbers a row by the step that completed it, from 0.
                    logger.log_metrics(_metrics(rows), step - 1)
                log.info("probes after epoch %d: %s", epoch, _summary_line(rows))
            except (UserError, OSError) as error:
                log.warning("no probes after epoch %d: %s; training continues", epoch, error)
            except Exception:
                # Hours of training are worth more than one probe, whatever its error.
                log.exception("no probes after epoch %d; training continues", epoch)


def _metrics(rows: pd.DataFrame) -> dict[str, float]:
    """Return scores and, where there is a baseline, the differences to it."""
    metrics = {}
    for row in rows.itertuples():
        name = f"probe/{row.dataset}/{row.metric}_{row.n_train:g}"
        metrics[name] = float(row.value)
        if pd.notna(row.difference):
            metrics[f"{name}_gain"] = float(row.difference)
    return metrics


def _summary_line(rows: pd.DataFrame) -> str:
    parts = []
    for (dataset, metric), group in rows.groupby(["dataset", "metric"], sort=False):
        scores = ", ".join(f"{row.value:.3f} with {row.n_train:.0f}" for row in group.itertuples())
        parts.append(f"{dataset} {metric} {scores} labels")
    return " · ".join(parts)
