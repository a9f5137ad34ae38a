"""From draws to micro-batches: read from stores, transform, collect in one tensor."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.core.records import Boxes, Target, Task, TaskKind
from datamodules.store.reader import Store
from datamodules.stream.batch import BatchTarget, DetectionTarget, MultiTaskBatch, Part
from datamodules.stream.sampling import Draw, TrainSampler
from datamodules.stream.transforms import Transform


@dataclass(frozen=True)
class StoreView:
    """The rows of one split of one store, with the transform to the network's input size."""

    name: str  # of the dataset in the run
    store: Store
    rows: NDArray[np.int64]  # (n,), rows of the store that belong to the split
    transform: Transform

    def __len__(self) -> int:
        return len(self.rows)

    def fill(self, out: NDArray[np.uint8], draw: Draw) -> dict[str, BatchTarget]:
        """Write a draw's images into `out`, (n, size, size, 3) uint8; return its targets."""
        index = self.rows[draw.rows]
        images = self.store.images(index)
        targets = self.store.targets_of(index)
        for place, seed in enumerate(draw.seeds.tolist()):
            out[place], targets[place] = self.transform(images[place], targets[place], seed)
        return {t.name: collate(t, [of[t.name] for of in targets]) for t in self.store.tasks}


@dataclass(frozen=True)
class StreamDataset(Dataset[MultiTaskBatch]):
    """Turns a list of draws into one micro-batch of images of `size` pixels."""

    views: Sequence[StoreView]
    size: int

    def __getitems__(self, draws: list[Draw]) -> MultiTaskBatch:
        """Return one micro-batch; torch's loader passes a batch sampler's item as it is."""
        total = sum(len(draw.rows) for draw in draws)
        images = np.empty((total, self.size, self.size, 3), np.uint8)
        parts, start = [], 0
        for draw in draws:
            view, stop = self.views[draw.dataset], start + len(draw.rows)
            targets = view.fill(images[start:stop], draw)
            index = torch.from_numpy(view.rows[draw.rows])
            parts.append(Part(view.name, start, stop, targets, index, draw.valid))
            start = stop
        return MultiTaskBatch(torch.from_numpy(images), parts, draws[0].step)


class StreamLoader(DataLoader[MultiTaskBatch]):
    """A loader that Lightning recognises as resumable: its state is one number."""

    def state_dict(self) -> dict[str, Any]:
        """Micro-batches trained so far, for the checkpoint."""
        sampler = self.batch_sampler
        return {"micro_batches": sampler.position() if isinstance(sampler, TrainSampler) else 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore nothing: the sampler asks the trainer for the position."""


def make_loader(
    views: Sequence[StoreView], sampler: Sampler[list[Draw]], size: int, workers: int
) -> StreamLoader:
    """Make a loader of micro-batches of `size` pixels.

    Draws number the views in their order; 0 workers load in the calling process.
    """
    return StreamLoader(
        StreamDataset(views, size),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_identity,
        worker_init_fn=init_worker,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        # The workers' own random state is never used; a fixed generator keeps the trainer's.
        generator=torch.Generator().manual_seed(0),
    )


def _identity(batch: Any) -> Any:
    return batch


def init_worker(worker: int) -> None:
    """Ignore signals; exit if the trainer is gone.

    A batch system signals every process, but only the trainer acts on it. torch's loader notes
    its parent after this call, so it would never notice a parent that was killed before.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    forked = multiprocessing.get_start_method() == "fork"
    if forked and parent is not None and os.getppid() != parent.pid:
        os._exit(1)


def micro_batches_trained(trainer: pl.Trainer | None) -> int:
    """Micro-batches that this rank has trained on in this run, including before a resume."""
    if trainer is None:
        return 0
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return int(progress.processed)


def collate(task: Task, targets: list[Target]) -> BatchTarget:
    """Stack the targets of several images (shapes: see `datamodules.stream.batch.BatchTarget`)."""
    if task.kind is TaskKind.DETECTION:
        boxes = [target for target in targets if isinstance(target, Boxes)]
        counts = np.array([len(b) for b in boxes])
        return DetectionTarget(
            torch.from_numpy(np.concatenate([b.xyxy for b in boxes])),
            torch.from_numpy(np.concatenate([b.labels for b in boxes])),
            torch.from_numpy(np.repeat(np.arange(len(boxes)), counts)),
        )
    stacked = torch.from_numpy(np.stack([np.asarray(target) for target in targets]))
    if task.kind in (TaskKind.REGRESSION, TaskKind.MULTILABEL):
        return stacked.float()
    return stacked if task.kind is TaskKind.SEGMENTATION else stacked.long()
