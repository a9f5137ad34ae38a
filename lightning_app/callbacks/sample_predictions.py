"""Draws predictions on a few validation images, and confusion matrices of the validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from datamodules.core.records import TaskKind
from datamodules.display.contact_sheet import choose_rows
from datamodules.reader import DatasetReader
from datamodules.stream.batch import MultiTaskBatch
from datamodules.stream.loading import StoreView, StreamDataset
from datamodules.stream.sampling import Draw
from datamodules.stream.transforms import Transform
from evaluation.figure_files import save_photograph
from evaluation.figures.confusion import ConfusionCounts, count_drawings, read_counts
from evaluation.figures.samples import Panel, above, panel_drawing
from evaluation.run_files import PANELS
from lightning_app.callbacks.later_step import later_step
from lightning_app.loggers.wandb_media import log_counts, log_panels
from models.module import MultiTaskModule
from models.network.detection_grid import Detections
from models.network.heads import Prediction

DENSE_IMAGES, IMAGES = 4, 9
"""Images per dataset: fewer where each one takes a row of its own."""


class ShowPanels(Callback):
    """Writes `panels/*.png` when training ends, and logs the same to W&B.

    The images are the same every time. Place it before a callback that averages weights, so that
    panels during training show the averaged ones, as validation does.

    Args:
        folder: the run's folder.
        datasets: training datasets, prepared.
        every: epochs between two sets of panels during training; 0 draws at the end only.
        seed: seed of the choice of images.
    """

    def __init__(
        self, folder: Path, datasets: Mapping[str, DatasetReader], every: int, seed: int
    ) -> None:
        self.folder = folder / PANELS
        self.datasets = datasets
        self.every = every
        self.seed = seed
        self._drawn = 0
        self._counts: list[ConfusionCounts] = []
        self._batches: dict[str, MultiTaskBatch] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Read the confusion counts before the module computes its scores and resets them."""
        self._counts = read_counts(pl_module.scores["val"])
        epoch = trainer.current_epoch + 1
        if self.every and self._drawn + self.every <= epoch < (trainer.max_epochs or 0):
            self._drawn = epoch
            self._show(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw the last panels and the counts of the last validation on rank 0."""
        if not trainer.is_global_zero or trainer.interrupted:
            return
        with later_step("drawing predictions", f"report {self.folder.parent}"):
            self._show(trainer, pl_module)
            for counts in self._counts:
                for drawing in count_drawings(counts, self._synthetic(counts.spec.dataset)):
                    save_photograph(drawing, self.folder)
            log_counts(trainer.loggers, self._counts, trainer.global_step)

    def _show(self, trainer: pl.Trainer, module: MultiTaskModule) -> None:
        # All ranks predict, so that none waits for another; one draws.
        panels = [panel for name in self.datasets for panel in self._panels(name, module)]
        if trainer.is_global_zero:
            for panel in panels:
                save_photograph(panel_drawing(panel), self.folder)
            log_panels(trainer.loggers, panels, trainer.global_step)

    def _panels(self, dataset: str, module: MultiTaskModule) -> list[Panel]:
        """Return one panel per task of a dataset; none if it has no validation images."""
        if dataset not in self._batches:
            self._batches[dataset] = sample_batch(self.datasets[dataset], dataset, self.seed)
        batch = self._batches[dataset]
        if not len(batch.images):
            return []
        predictions = predict(module, batch)
        best = {counts.spec.key: tuple(counts.best_thresholds()) for counts in self._counts}
        panels = []
        for spec in module.model.tasks_of(batch.parts[0]):
            prediction = predictions[spec.key]
            thresholds: tuple[float, ...] = ()
            if isinstance(prediction, Detections):
                thresholds = best.get(spec.key, (0.5,) * len(spec.task.classes))
                prediction = above(prediction, thresholds)
            target, pixels = batch.parts[0].targets[spec.task.name], batch.images.numpy()
            synthetic = self._synthetic(dataset)
            panels.append(Panel(spec, pixels, target, prediction, thresholds, synthetic))
        return panels

    def _synthetic(self, dataset: str) -> bool:
        return bool(self.datasets[dataset].store.synthetic)


def sample_batch(dataset: DatasetReader, name: str, seed: int) -> MultiTaskBatch:
    """Return a few varied validation images of a prepared dataset, the same for the same seed."""
    store = dataset.store
    dense = any(t.kind in (TaskKind.SEGMENTATION, TaskKind.DETECTION) for t in store.tasks)
    count = DENSE_IMAGES if dense else IMAGES
    rows = choose_rows(store, count, seed, dataset.rows("val"))
    size = dataset.data.image_size
    view = StoreView(name, store, rows, Transform(size, store.tasks))
    if not len(rows):
        return MultiTaskBatch(torch.zeros(0, size, size, 3, dtype=torch.uint8), [])
    draw = Draw(0, np.arange(len(rows)), np.zeros(len(rows), np.int64), len(rows), 0)
    return StreamDataset([view], size).__getitems__([draw])


def predict(module: MultiTaskModule, batch: MultiTaskBatch) -> dict[str, Prediction]:
    """Return predictions by task key on the CPU, without any effect on training."""
    training = module.training
    module.eval()
    with torch.inference_mode():
        moved = module.on_after_batch_transfer(batch.to(module.device), 0)
        predictions = module.predict_step(moved)
    module.train(training)
    return {key: _on_cpu(value) for key, value in predictions.items()}


def _on_cpu(value: Prediction) -> Prediction:
    if isinstance(value, Detections):
        parts = (value.boxes, value.scores, value.labels, value.image)
        return Detections(*(part.cpu() for part in parts))
    return value.cpu()
