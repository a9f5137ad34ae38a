"""One dataset as a LightningDataModule: a stream of this dataset alone."""

from dataclasses import replace
from typing import ClassVar

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import ConfigError
from datamodules.multitask import MultiTaskDataModule, view_of
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store.reader import Store
from datamodules.stream.loading import StreamLoader, make_loader
from datamodules.stream.sampling import SweepSampler


class PathologyDataModule(MultiTaskDataModule):
    """One dataset; one epoch is one pass through its training images.

    Each reader has a subclass, imported by name: `from datamodules import GlaSDataModule`.

    An existing reader takes the place of the other arguments.

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
        if reader is None:
            config = config or DatasetConfig()
            key = self.key or config.reader or name
            if not key:
                raise ConfigError("PathologyDataModule: give a reader or the name of one")
            reader = build(name or key, replace(config, reader=key), data or DataConfig())
        super().__init__(reader.data, datasets={reader.name: reader})
        self.reader = reader
        self.config = reader.config
        self.name: str = reader.name

    @property
    def store(self) -> Store:
        """The prepared store."""
        return self.reader.store

    def test_dataloader(self) -> StreamLoader:
        """Images of the published test split, each once."""
        return self._sweep([view_of(self.reader, "test")])

    def evaluation_loader(self, input_size: int, batch_size: int) -> StreamLoader:
        """All images of the store in order, only resized to `input_size` pixels."""
        view = view_of(self.reader, "all", input_size)
        sampler = SweepSampler((len(view),), batch_size)
        return make_loader([view], sampler, input_size, self.data.workers)
