"""The end of training: averaged weights, final scores, export and probe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging

from datamodules.reader import DatasetReader
from lightning_app.callbacks.final_scores import FinalScores
from lightning_app.config import Config
from lightning_app.loggers.wandb_results import log_files, log_probes
from lightning_app.publish.model_card import write_model_card
from lightning_app.run.encoders import load_all, probe_run
from models.inference.export import export_encoder
from models.module import MultiTaskModule


class AveragedWeights(EMAWeightAveraging):
    """Lightning's average, also where training was over already when the run was resumed."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning skips `on_train_end` when no step is left; doing it twice changes nothing."""
        self.on_train_end(trainer, pl_module)


class ExportEncoder(Callback):
    """Writes encoder and model card when training ends; the averaged weights if there are.

    Place it behind the callback that averages.

    Args:
        folder: the run's folder.
        origin: provenance, kept beside the weights.
        final: scores the same weights; its place is before this one.
    """

    def __init__(self, folder: Path, origin: Mapping[str, Any], final: FinalScores) -> None:
        self.folder = folder
        self.origin = origin
        self.final = final

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank 0 writes; the weights are the same on all ranks."""
        if trainer.is_global_zero:
            if not isinstance(pl_module, MultiTaskModule):
                raise TypeError(f"expected a MultiTaskModule, got {type(pl_module).__name__}")
            scores, splits = self.final.scores, self.final.splits
            facts = {**self.origin, "scores": scores, "scored_on": splits}
            export_encoder(pl_module, self.folder, facts)
            write_model_card(self.folder, self.origin, scores, splits)


class ProbeAtEnd(Callback):
    """Probes the exported encoder and writes the report.

    It runs in `on_fit_end`, after the last collective call: the other ranks may leave while
    rank 0 computes, so no time-out can strike. Whatever fails here leaves the training result
    as it is.

    Args:
        folder: the run's folder.
        config: the run's configuration.
        unseen: the datasets to probe on, prepared.
        origin: provenance of the run.
        started: `time.monotonic()` at the start of the run.

    Attributes:
        failure: why the probe could not be done, else None.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        unseen: Mapping[str, DatasetReader],
        origin: dict[str, Any],
        started: float,
    ) -> None:
        self.folder = folder
        self.config = config
        self.unseen = unseen
        self.origin = origin
        self.started = started
        self.failure: Exception | None = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe on rank 0."""
        if not trainer.is_global_zero:
            return
        try:
            encoders, baseline = load_all([str(self.folder)], self.config)
            probe_run(
                self.folder,
                encoders,
                self.config,
                self.unseen,
                self.origin,
                self.started,
                baseline,
            )
            if self.unseen:
                log_probes(trainer.loggers, self.folder)
        except Exception as error:
            # Whatever it is, the encoder is on the disk and the W&B run ends well; `pretrain`
            # raises it then.
            self.failure = error
        log_files(trainer.loggers, self.folder)
