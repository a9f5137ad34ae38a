"""Several datasets as one stream of micro-batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pytorch_lightning as pl

from datamodules.config import DataConfig
from datamodules.core.errors import ConfigError, StoreError
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store.class_balance import rows_by_class
from datamodules.stream.batch import MultiTaskBatch
from datamodules.stream.loading import StoreView, StreamLoader, make_loader, micro_batches_trained
from datamodules.stream.sampling import Stream, SweepSampler, TrainSampler, batch_shares
from datamodules.stream.transforms import Transform


class MultiTaskDataModule(pl.LightningDataModule):
    """Round robin over datasets: every optimizer step closes whole rounds.

    Args:
        data: the settings; `data.train` names the datasets.
        steps_per_epoch: optimizer steps per epoch; 0 takes one pass through the largest dataset.
        rounds_per_step: rounds that one optimizer step closes.
        datasets: readers by name, in place of those of `data.train`.

    Raises:
        ConfigError: no dataset to train on.
    """

    def __init__(
        self,
        data: DataConfig,
        steps_per_epoch: int = 0,
        rounds_per_step: int = 1,
        datasets: Mapping[str, DatasetReader] | None = None,
    ) -> None:
        super().__init__()
        self.data = data
        self.datasets = datasets or {
            name: build(name, config, data) for name, config in data.train.items()
        }
        if not self.datasets:
            raise ConfigError("data.train: names no dataset; add at least one")
        self.steps_per_epoch = steps_per_epoch
        self.rounds_per_step = rounds_per_step
        self.resumed_steps = 0  # optimizer steps before the checkpoint that training resumes from
        self.between_batches: Callable[[pl.Trainer], None] | None = None

    @property
    def per_batch(self) -> int:
        """Datasets per micro-batch (K)."""
        return min(self.data.tasks_per_batch or len(self.datasets), len(self.datasets))

    @property
    def micro_batches_per_round(self) -> int:
        """Micro-batches that together hold every dataset once."""
        return -(-len(self.datasets) // self.per_batch)

    @property
    def micro_batches_per_step(self) -> int:
        """Micro-batches per optimizer step, which always closes whole rounds."""
        return self.rounds_per_step * self.micro_batches_per_round

    def prepare_data(self) -> None:
        """Write missing and outdated stores."""
        for dataset in self.datasets.values():
            prepare(dataset)

    def on_before_batch_transfer(
        self, batch: MultiTaskBatch, dataloader_idx: int
    ) -> MultiTaskBatch:
        """Call `between_batches`: the previous batch is finished, including what it logged.

        Lightning has no hook of its own for this moment.
        """
        if self.between_batches and self.trainer and self.trainer.training:
            self.between_batches(self.trainer)
        return batch

    def train_dataloader(self) -> StreamLoader:
        """Augmented micro-batches of `per_batch` datasets each."""
        stream = self.plan()
        passes = zip(stream.sizes, stream.batch_sizes, strict=True)
        rounds = max(-(-size // (batch * stream.world)) for size, batch in passes)
        steps = self.steps_per_epoch or -(-rounds // self.rounds_per_step)
        sampler = TrainSampler(stream, steps * self.micro_batches_per_step, self._position)
        views = [view_of(dataset, "train") for dataset in self.datasets.values()]
        return make_loader(views, sampler, self.data.image_size, self.data.workers)

    def plan(self) -> Stream:
        """The order of training; needs the stores.

        Raises:
            StoreError: a dataset has no image for training.
            ConfigError: the shares or the balancing of classes do not fit.
        """
        sizes, classes = [], []
        for name, dataset in self.datasets.items():
            rows = dataset.rows("train")
            if not len(rows):
                raise StoreError(f"{name}: no image is left for training in {dataset.store.path}")
            sizes.append(len(rows))
            classes.append(rows_by_class(dataset.store, rows, dataset.config.balance, name))
        explicit = [dataset.config.batch_size for dataset in self.datasets.values()]
        shares = batch_shares(sizes, self.data.batch_size, explicit, self.data.size_power)
        place = self.per_batch, self.data.seed, self._rank, self._world
        return Stream(tuple(sizes), shares, *place, tuple(classes))

    def val_dataloader(self) -> StreamLoader:
        """Validation images of all datasets, each once; one dataset per batch."""
        return self.validation_of(self.datasets)

    def validation_of(self, names: Iterable[str]) -> StreamLoader:
        """Validation images of some datasets, each once; one dataset per batch."""
        return self._sweep([view_of(self.datasets[name], "val") for name in names])

    def test_dataloader(self) -> StreamLoader:
        """Images of all datasets for a final evaluation, each once (see `final_splits`)."""
        splits = self.final_splits()
        return self._sweep([view_of(d, splits[name]) for name, d in self.datasets.items()])

    def final_splits(self) -> dict[str, str]:
        """By dataset: "test" if its publisher names test images, else "val"."""
        return {
            name: "test" if len(dataset.rows("test")) else "val"
            for name, dataset in self.datasets.items()
        }

    def _sweep(self, views: Sequence[StoreView]) -> StreamLoader:
        batch_size = max(dataset.batch_size for dataset in self.datasets.values())
        sizes = tuple(len(view) for view in views)
        sampler = SweepSampler(sizes, batch_size, self._rank, self._world)
        workers = min(self.data.workers, 2)  # nothing to augment
        return make_loader(views, sampler, self.data.image_size, workers)

    def _position(self) -> int:
        """Micro-batches trained so far in this run, including before a resume.

        Lightning requests the first batches before it restores its counters from the checkpoint.
        """
        resumed = self.resumed_steps * self.micro_batches_per_step
        return max(resumed, micro_batches_trained(self.trainer))

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def view_of(dataset: DatasetReader, split: str, size: int | None = None) -> StoreView:
    """The rows of a split with its transform; "all" is every row, not augmented."""
    store = dataset.store
    rows = np.arange(len(store)) if split == "all" else dataset.rows(split)
    augmentation = dataset.data.augmentation if split == "train" else None
    transform = Transform(size or dataset.data.image_size, store.tasks, augmentation)
    return StoreView(dataset.name, store, rows, transform)
