"""Draws predictions on a few validation images, and confusion matrices of the validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback

from datamodules.core.records import TaskKind
from datamodules.display.contact_sheet import choose_rows
from datamodules.reader import DatasetReader
from datamodules.stream.batch import MultiTaskBatch
from datamodules.stream.loading import StoreView, StreamDataset
from datamodules.stream.sampling import Draw
from datamodules.stream.transforms import Transform
from evaluation.figures.canvas import Words, save_picture
from evaluation.figures.confusion import (
    Tally,
    confusion_figure,
    describe_confusion,
    describe_recall,
    precision_recall_figure,
    read_tallies,
)
from evaluation.figures.sample_figure import write_panel
from evaluation.figures.sample_predictions import Panel, above
from evaluation.run_files import CONFUSION, RECALL
from lightning_app.loggers.wandb_media import log_panels, log_tallies
from models.module import MultiTaskModule
from models.network.detection_grid import Detections
from models.network.heads import Prediction

FOLDER = "panels"
DENSE_IMAGES, IMAGES = 4, 9
"""Images per dataset: fewer where each one takes a row of its own."""

_DPI = 130  # of confusion matrices and precision-recall curves


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
        self.folder = folder / FOLDER
        self.datasets = datasets
        self.every = every
        self.seed = seed
        self._drawn = 0
        self._tallies: list[Tally] = []
        self._batches: dict[str, MultiTaskBatch] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Read the confusion counts before the module computes its scores and resets them."""
        self._tallies = read_tallies(pl_module.scores["val"])
        epoch = trainer.current_epoch + 1
        if self.every and self._drawn + self.every <= epoch < (trainer.max_epochs or 0):
            self._drawn = epoch
            self._show(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw the last panels and the counts of the last validation on rank 0."""
        if not trainer.is_global_zero or trainer.interrupted:
            return
        self._show(trainer, pl_module)
        for tally in self._tallies:
            write_tally(tally, self.folder, self._synthetic(tally.spec.dataset))
        log_tallies(trainer.loggers, self._tallies, trainer.global_step)

    def _show(self, trainer: pl.Trainer, module: MultiTaskModule) -> None:
        # All ranks predict, so that none waits for another; one draws.
        panels = [panel for name in self.datasets for panel in self._panels(name, module)]
        if trainer.is_global_zero:
            for panel in panels:
                write_panel(panel, self.folder)
            log_panels(trainer.loggers, panels, trainer.global_step)

    def _panels(self, dataset: str, module: MultiTaskModule) -> list[Panel]:
        """Return one panel per task of a dataset; none if it has no validation images."""
        if dataset not in self._batches:
            self._batches[dataset] = sample_batch(self.datasets[dataset], dataset, self.seed)
        batch = self._batches[dataset]
        if not len(batch.images):
            return []
        predictions = predict(module, batch)
        best = {tally.spec.key: tuple(tally.best_thresholds()) for tally in self._tallies}
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


def write_tally(tally: Tally, folder: Path, synthetic: bool) -> list[Path]:
    """Draw confusion matrix and curves as `<folder>/<dataset>-<task>-*.png`."""
    note = ", validation" + (" - SYNTHETIC TISSUE" if synthetic else "")
    figures: dict[str, tuple[Figure, str]] = {}
    if tally.confusion is not None:
        figure = confusion_figure(tally, tally.confusion, note)
        figures[CONFUSION] = figure, describe_confusion(tally, tally.confusion)
    if tally.curves():
        figures[RECALL] = precision_recall_figure(tally, note), describe_recall(tally)
    name, title = f"{tally.spec.dataset}-{tally.spec.task.name}", tally.spec.key.replace("/", ": ")
    return [
        save_picture(figure, folder / f"{name}-{kind}.png", Words(title, text), _DPI)
        for kind, (figure, text) in figures.items()
    ]


def _on_cpu(value: Prediction) -> Prediction:
    if isinstance(value, Detections):
        parts = (value.boxes, value.scores, value.labels, value.image)
        return Detections(*(part.cpu() for part in parts))
    return value.cpu()
