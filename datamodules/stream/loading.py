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

from datamodules.core.cores import available_cores
from datamodules.core.records import Boxes, Target, Task, TaskKind
from datamodules.store.reader import Store
from datamodules.stream.batch import BatchTarget, DetectionTarget, MultiTaskBatch, Part
from datamodules.stream.sampling import Draw, SweepSampler, TrainSampler
from datamodules.stream.shared_buffers import SharedBuffers
from datamodules.stream.transforms import Transform

_PREFETCHED = 4  # micro-batches per process
_IN_USE = 2  # micro-batches that training holds meanwhile
_OTHER_BYTES = 2**16  # of the targets of an image, besides masks; memory that is not used is free


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


@dataclass
class StreamDataset(Dataset[MultiTaskBatch]):
    """Turns a list of draws into one micro-batch of images of `size` pixels."""

    views: Sequence[StoreView]
    size: int
    buffers: SharedBuffers | None = None  # to hand batches to another process

    def __getitems__(self, draws: list[Draw]) -> MultiTaskBatch:
        """Return one micro-batch; torch's loader passes a batch sampler's item as it is."""
        shape = (sum(len(draw.rows) for draw in draws), self.size, self.size, 3)
        images = self.buffers.empty(shape) if self.buffers else np.empty(shape, np.uint8)
        parts, start = [], 0
        for draw in draws:
            view, stop = self.views[draw.dataset], start + len(draw.rows)
            targets = view.fill(images[start:stop], draw)
            index = torch.from_numpy(view.rows[draw.rows])
            parts.append(Part(view.name, start, stop, targets, index, draw.valid))
            start = stop
        batch = MultiTaskBatch(torch.from_numpy(images), parts, draws[0].step)
        return self.buffers.packed(batch) if self.buffers else batch

    def share(self, images: int, workers: int) -> None:
        """Make buffers for micro-batches of at most `images` images from some processes."""
        masks = max(
            sum(task.kind is TaskKind.SEGMENTATION for task in view.store.tasks)
            for view in self.views
        )
        each = self.size**2 * (3 + masks) + _OTHER_BYTES
        self.buffers = SharedBuffers(workers, _PREFETCHED + _IN_USE, images * each)


class StreamLoader(DataLoader[MultiTaskBatch]):
    """A loader that Lightning recognises as resumable: its state is one number."""

    def _get_iterator(self) -> Any:
        dataset, sampler = self.dataset, self.batch_sampler
        if self.num_workers and _forks() and isinstance(dataset, StreamDataset):
            # New processes get new buffers: of the old ones, some may never be freed.
            largest = sampler.largest if isinstance(sampler, TrainSampler | SweepSampler) else 0
            dataset.share(largest, self.num_workers)
        return super()._get_iterator()

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

    Draws number the views in their order; 0 workers load in the calling process, and more than
    the machine has cores would only wait for one another.
    """
    workers = min(workers, available_cores())
    return StreamLoader(
        StreamDataset(views, size),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_identity,
        worker_init_fn=init_worker,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        prefetch_factor=_PREFETCHED if workers else None,
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
    if _forks() and parent is not None and os.getppid() != parent.pid:
        os._exit(1)


def _forks() -> bool:
    return multiprocessing.get_start_method() == "fork"


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
