"""The last word on every task: the final weights on official test images, where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from datamodules.core.atomic import write_json
from datamodules.multitask import MultiTaskDataModule
from evaluation.run_files import FINAL
from models.metrics.task_metrics import TaskMetrics
from models.module import MultiTaskModule


class FinalScores(Callback):
    """Scores the final weights once, with average precision, and writes `final_scores.json`.

    Of a dataset with a published test split these are the test images, else the validation images;
    the file says which. All ranks share the images. Place it behind the callback that averages
    weights and before the one that exports.

    Args:
        folder: the run's folder.

    Attributes:
        scores: by "dataset/task/metric"; empty before training ends.
        splits: "test" or "val" by dataset.
        summary: mean over tasks of the number that stands for each, if any is defined.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scores: Mapping[str, float] = {}
        self.splits: Mapping[str, str] = {}
        self.summary: float | None = None

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
        if not isinstance(module, MultiTaskModule) or not isinstance(stream, MultiTaskDataModule):
            raise TypeError("final scores need a MultiTaskModule and a MultiTaskDataModule")
        training = module.training
        module.eval()
        with torch.no_grad():
            for number, batch in enumerate(stream.test_dataloader()):
                moved = trainer.strategy.batch_to_device(batch, module.device)
                trainer.strategy.test_step(moved, number)
        module.train(training)
        board = module.scores["test"]
        if not isinstance(board, TaskMetrics):
            raise TypeError(f"expected TaskMetrics, got {type(board).__name__}")
        self.scores, self.summary = board.collect()
        self.splits = stream.final_splits()
        if not trainer.is_global_zero:
            return
        found = {"splits": self.splits, "summary": self.summary, "scores": self.scores}
        write_json(self.folder / FINAL, found)
        logged = {f"test/{key}": value for key, value in self.scores.items()}
        if self.summary is not None:
            logged["test/summary"] = self.summary
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)
