"""Training: Lightning's step against a bare loop, and many datasets in a step (goal e)."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.timing import Rows, row
from datamodules.core.records import Task, TaskKind
from datamodules.stream.batch import DetectionTarget, MultiTaskBatch, Part
from models.config import ModelConfig, OptimConfig
from models.module import MultiTaskModule
from models.tasks import TaskSpec
from models.training.optimizer import parameter_groups

KINDS = (TaskKind.CLASSIFICATION, TaskKind.SEGMENTATION, TaskKind.DETECTION)
OBJECTS = 10  # per image of a detection task


def specs(datasets: int) -> list[TaskSpec]:
    """One task for each dataset: classification, segmentation and detection in turn."""
    classes = ("a", "b", "c", "d")
    return [TaskSpec(f"d{i}", Task("t", KINDS[i % 3], classes), 0.5) for i in range(datasets)]


def batch(group: list[TaskSpec], images: int, side: int, step: int = 0) -> MultiTaskBatch:
    """Random images and targets of some datasets."""
    parts = []
    for number, spec in enumerate(group):
        target: Any = torch.randint(0, 2, (images,))
        if spec.task.kind is TaskKind.SEGMENTATION:
            target = torch.randint(0, 2, (images, side, side), dtype=torch.uint8)
        elif spec.task.kind is TaskKind.DETECTION:
            corner = torch.rand(OBJECTS * images, 2) * (side - 20)
            labels = torch.randint(0, 2, (OBJECTS * images,))
            image = torch.arange(images).repeat_interleave(OBJECTS)
            target = DetectionTarget(torch.cat([corner, corner + 20], 1), labels, image)
        start, index = number * images, torch.arange(images)
        parts.append(Part(spec.dataset, start, start + images, {"t": target}, index, images))
    pixels = torch.randint(0, 256, (len(group) * images, side, side, 3), dtype=torch.uint8)
    return MultiTaskBatch(pixels, parts, step)


class Repeated(IterableDataset[MultiTaskBatch]):
    """The same micro-batches again and again."""

    def __init__(self, batches: list[MultiTaskBatch], steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __iter__(self) -> Iterator[MultiTaskBatch]:
        for number in range(self.steps * len(self.batches)):
            yield self.batches[number % len(self.batches)]


class Loop:
    """A module, its micro-batches of one round, and two ways to train on them."""

    def __init__(self, model: ModelConfig, datasets: int, k: int, images: int, side: int) -> None:
        torch.manual_seed(0)
        tasks = specs(datasets)
        groups = [tasks[i : i + k] for i in range(0, datasets, k)]
        self.batches = [batch(group, images, side) for group in groups]
        jitter = {"color_strength": 0.2, "blur_probability": 0.1, "stain_strength": 0.05}
        self.module = MultiTaskModule(tasks, model, OptimConfig(), side, len(groups), **jitter)

    def bare(self, steps: int, each: bool = False) -> list[float]:
        """The same network, losses, jitter, clipping and optimizer, without Lightning.

        The optimizer steps after each round, or after each micro-batch. Returns the seconds of
        each of its steps.
        """
        ends = []
        share = 1 if each else len(self.batches)
        optimizer = torch.optim.AdamW(parameter_groups(self.module.model, OptimConfig()))
        self.module.train()
        for number, one in enumerate(steps * self.batches, start=1):
            prepared = self.module.on_after_batch_transfer(one, 0)
            (self.module.micro_batch_loss(prepared) / share).backward()
            if each or number % len(self.batches) == 0:
                torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                ends.append(time.perf_counter())
            self.module.step_losses, self.module._unlogged = [], []
        return [b - a for a, b in pairwise(ends)]

    def lightning(self, steps: int) -> list[float]:
        """As the project trains; the seconds of each step."""
        from lightning_app.callbacks.monitors import LearningRates, Throughput
        from lightning_app.callbacks.non_finite import NonFiniteGuard

        clock = Ends()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = pl.Trainer(
                max_epochs=1, accumulate_grad_batches=len(self.batches), gradient_clip_val=1.0,
                log_every_n_steps=10, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, logger=pl.loggers.CSVLogger(folder), devices=1,
                accelerator="cpu", callbacks=[
                    NonFiniteGuard({}, "stop"), Throughput(10), LearningRates("step"), clock,
                ],
            )  # fmt: skip
            loader = DataLoader(Repeated(self.batches, steps), batch_size=None)
            trainer.fit(self.module, loader)
        return [b - a for a, b in pairwise(clock.ends)]


class Ends(pl.Callback):
    """Notes when each optimizer step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.step = 0

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Note the time where the optimizer stepped."""
        if trainer.global_step > self.step:
            self.ends.append(time.perf_counter())
            self.step = trainer.global_step


def measure(folder: Path, steps: int = 6, rounds: int = 12) -> Rows:
    """Time of a step with Lightning against a bare loop; images per second with K = all."""
    torch.set_num_threads(1)
    model = ModelConfig("tf_efficientnet_lite0", "random", neck_channels=64)
    together = Loop(model, 4, 4, 4, 96)
    alone = Loop(model, 4, 1, 4, 96)
    bare, fitted, single = [], [], []  # many short turns: steps differ by a tenth in their time
    for number in range(rounds):
        turns = [lambda: bare.extend(together.bare(steps)),
                 lambda: fitted.extend(together.lightning(steps)),
                 lambda: single.extend(alone.bare(steps, each=True))]  # fmt: skip
        for turn in turns[:: (-1) ** number]:
            turn()
    over = statistics.median(fitted) / statistics.median(bare)
    # Steps with one dataset differ by its kind of task.
    fused = len(alone.batches) * statistics.fmean(single) / statistics.fmean(bare)
    return [
        row("e", "a step with Lightning, of a bare loop's", over, 1.05, most=True),
        row("e", "images/s, four datasets in a step against one", fused, 1.3),
    ]
