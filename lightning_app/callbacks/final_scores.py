"""Scores of the final weights, on official test images where a dataset has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from datamodules.core.atomic import write_json
from datamodules.core.progress import Work
from datamodules.core.records import TaskKind
from evaluation.run_files import FINAL
from lightning_app.callbacks.later_step import later_step


class FinalScores(Callback):
    """Scores the final weights with average precision, and writes `<folder>/final_scores.json`.

    It uses the test images of a dataset with a published test split, else the validation images;
    the file records which. Detection thresholds for test images are those that are best on the
    validation images. The ranks share the images. Place it after the callback that averages
    weights and before the one that exports.

    Attributes:
        scores: by "dataset/task/metric"; empty before training ends.
        splits: "test" or "val" by dataset.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scores: Mapping[str, float] = {}
        self.splits: Mapping[str, str] = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score while the model is still on its device."""
        if not trainer.interrupted:
            self._evaluate(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score a resumed run that had no step left: Lightning skips `on_train_end` then."""
        if not trainer.interrupted and not self.splits:
            pl_module.to(trainer.strategy.root_device)
            self._evaluate(trainer, pl_module)
            pl_module.cpu()

    def _evaluate(self, trainer: pl.Trainer, module: Any) -> None:
        stream: Any = trainer.datamodule  # type: ignore[attr-defined]
        training = module.training
        module.eval()
        with torch.no_grad():
            self._choose_thresholds(trainer, module, stream)
            loader = stream.test_dataloader()
            with Work("final scores", "batches", len(loader)) as work:
                for number, batch in enumerate(work.over(loader, lambda _: 1)):
                    moved = trainer.strategy.batch_to_device(batch, module.device)
                    trainer.strategy.test_step(moved, number)
        module.train(training)
        self.scores, summary = module.scores["test"].collect()
        self.splits = stream.final_splits()
        if not trainer.is_global_zero:
            return
        content = {"splits": self.splits, "summary": summary, "scores": self.scores}
        write_json(self.folder / FINAL, content)
        metrics = {f"test/{key}": value for key, value in self.scores.items()}
        if summary is not None:
            metrics["test/summary"] = summary
        with later_step("logging the final scores", f"report {self.folder}"):
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)

    def _choose_thresholds(self, trainer: pl.Trainer, module: Any, stream: Any) -> None:
        """Score detection of datasets with test images on their validation images first."""
        detecting = {s.dataset for s in module.specs if s.task.kind is TaskKind.DETECTION}
        splits = stream.final_splits()
        names = [name for name, split in splits.items() if split == "test" and name in detecting]
        if not names:
            return
        for number, batch in enumerate(stream.validation_of(names)):
            moved = trainer.strategy.batch_to_device(batch, module.device)
            trainer.strategy.validation_step(moved, number)
        module.scores["test"].take_thresholds(module.scores["val"], names)
