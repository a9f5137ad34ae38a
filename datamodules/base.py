"""One dataset as a LightningDataModule: the rows of its splits, augmented, in batches."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytorch_lightning as pl

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import ConfigError
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store.class_balance import rows_by_class
from datamodules.store.reader import Store
from datamodules.stream.loading import StoreView, StreamLoader, make_loader, micro_batches_trained
from datamodules.stream.sampling import Stream, SweepSampler, TrainSampler
from datamodules.stream.transforms import Transform


class PathologyDataModule(pl.LightningDataModule):
    """One dataset; `MultiTaskDataModule` combines several into one stream.

    Each reader has a subclass, imported by name: `from datamodules import GlaSDataModule`.

    Args:
        data: settings that all datasets share.
        config: settings of this dataset.
        name: its name in the run; the reader's name if empty.
        reader: an existing reader, in place of the other arguments.

    Raises:
        ConfigError: neither a subclass nor an argument names a reader.
    """

    key: ClassVar[str] = ""

    def __init__(
        self,
        data: DataConfig | None = None,
        config: DatasetConfig | None = None,
        name: str = "",
        *,
        reader: DatasetReader | None = None,
    ) -> None:
        super().__init__()
        if reader is None:
            config = config or DatasetConfig()
            key = self.key or config.reader or name
            if not key:
                raise ConfigError("PathologyDataModule: give a reader or the name of one")
            reader = build(name or key, replace(config, reader=key), data or DataConfig())
        self.reader = reader
        self.data, self.config = reader.data, reader.config
        self.name: str = reader.name

    @property
    def store(self) -> Store:
        """The prepared store."""
        return self.reader.store

    def prepare_data(self) -> None:
        """Write the store if it is missing or outdated."""
        prepare(self.reader)

    def train_dataloader(self) -> StreamLoader:
        """Augmented micro-batches of this dataset alone; one epoch is one pass."""
        view, batch_size = view_of(self.reader, "train"), self.reader.batch_size
        classes = (rows_by_class(self.store, view.rows, self.config.balance, self.name),)
        stream = Stream((len(view),), (batch_size,), 1, self.data.seed, classes=classes)
        length = -(-len(view) // batch_size)
        sampler = TrainSampler(stream, length, lambda: micro_batches_trained(self.trainer))
        return make_loader([view], sampler, self.data.image_size, self.data.workers)

    def val_dataloader(self) -> StreamLoader:
        """Validation images, each once."""
        return self._sweep("val", self.data.image_size, self.reader.batch_size)

    def test_dataloader(self) -> StreamLoader:
        """Test images, each once."""
        return self._sweep("test", self.data.image_size, self.reader.batch_size)

    def evaluation_loader(self, input_size: int, batch_size: int) -> StreamLoader:
        """All images of the store in order, only resized to `input_size` pixels."""
        return self._sweep("all", input_size, batch_size)

    def _sweep(self, split: str, size: int, batch_size: int) -> StreamLoader:
        view = view_of(self.reader, split, size)
        sampler = SweepSampler((len(view),), batch_size)
        return make_loader([view], sampler, size, self.data.workers)


def view_of(dataset: DatasetReader, split: str, size: int | None = None) -> StoreView:
    """The rows of a split with its transform; "all" is every row, not augmented."""
    store = dataset.store
    rows = np.arange(len(store)) if split == "all" else dataset.rows(split)
    augmentation = dataset.data.augmentation if split == "train" else None
    transform = Transform(size or dataset.data.image_size, store.tasks, augmentation)
    return StoreView(dataset.name, store, rows, transform)
