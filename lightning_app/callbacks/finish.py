"""The end of training: averaged weights, export and probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging

from lightning_app.callbacks.final_scores import FinalScores
from lightning_app.callbacks.later_step import later_step
from lightning_app.loggers.wandb_results import log_files, log_probes
from lightning_app.publish.model_card import write_model_card
from lightning_app.run.folder import RunContext
from lightning_app.run.probing import load_all, probe_run
from models.distributed import is_sharded
from models.inference.export import export_encoder


class AveragedWeights(EMAWeightAveraging):
    """Lightning's average, also for a run that is resumed after its last step."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning skips `on_train_end` when no step is left; calling it twice is harmless."""
        self.on_train_end(trainer, pl_module)


@dataclass(eq=False)
class ExportEncoder(Callback):
    """Writes the encoder as soon as training ends, with the averaged weights if there are any.

    Place it after the callback that averages weights and before all that may fail.

    Attributes:
        run: the run; its provenance is stored beside the weights.
    """

    run: RunContext

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write on rank 0, unless the ranks still hold pieces of the weights."""
        if trainer.is_global_zero and not trainer.interrupted and not is_sharded(pl_module):
            export_encoder(pl_module, self.run.folder, self.run.origin)


@dataclass(eq=False)
class ModelCard(Callback):
    """Adds the scores to the exported encoder's facts, and writes the model card.

    Place it after the callback that scores the final weights.

    Attributes:
        run: the run.
        final: callback that scores the exported weights.
    """

    run: RunContext
    final: FinalScores

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write on rank 0."""
        if trainer.is_global_zero:
            folder, origin = self.run.folder, self.run.origin
            scores, splits = self.final.scores, self.final.splits
            export_encoder(pl_module, folder, {**origin, "scores": scores, "scored_on": splits})
            with later_step("model card", f"export {folder} --out hub"):
                write_model_card(folder, origin, scores, splits)


@dataclass(eq=False)
class ProbeAtEnd(Callback):
    """Probes the exported encoder and writes the report.

    It runs in `on_fit_end`, after the last collective call: the other ranks may exit while rank 0
    computes, so no timeout applies. A failure here leaves the result of training as it is.

    Attributes:
        run: the run.
        failure: why the probe failed, else None.
    """

    run: RunContext
    failure: Exception | None = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe on rank 0."""
        if not trainer.is_global_zero:
            return
        folder = self.run.folder
        try:
            unseen = self.run.unseen  # without any, no baseline is needed
            encoders, baseline = load_all([str(folder)], self.run.config) if unseen else ([], None)
            probe_run(self.run, encoders, baseline)
            if unseen:
                with later_step("sending probes to the loggers", f"report {folder}"):
                    log_probes(trainer.loggers, folder)
        except Exception as error:
            # The encoder is on the disk and the W&B run must close; `pretrain` raises this later.
            self.failure = error
        with later_step("sending files to the loggers", f"report {folder}"):
            log_files(trainer.loggers, folder)
