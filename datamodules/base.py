"""The base of every dataset: facts and a reader below, everything else here, once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamodules.balance import rows_by_class
from datamodules.errors import ConfigError, DatasetNotFoundError
from datamodules.loading import StoreView, StreamLoader, make_loader, micro_batches_trained
from datamodules.records import SPLITS, Record, Task
from datamodules.sampling import Stream, SweepSampler, TrainSampler
from datamodules.settings import Compression, DataConfig, DatasetConfig
from datamodules.store import SCHEMA, Store
from datamodules.tiling import Cutter, View
from datamodules.transforms import Transform


@dataclass(frozen=True)
class Archive:
    """A file that the publisher offers.

    Attributes:
        url: where it lies.
        checksum: "md5:..." or "sha256:..." as published; empty where none is.
        bytes: size; 0 where not published.
        content: checksum of the one file in a .gz archive, where that is what is published.
    """

    url: str
    checksum: str = ""
    bytes: int = 0
    content: str = ""


@dataclass
class NoOptions:
    """The options of a reader that has none."""


class PathologyDataModule(pl.LightningDataModule):
    """One public dataset: facts as class attributes, `records` and `forge` as behaviour.

    A subclass's docstring is the dataset's card. Used alone it is an ordinary
    LightningDataModule; `MultiTaskDataModule` combines several into one stream.

    Attributes:
        title: full name.
        organs: what tissue.
        licence: as the publisher states it.
        commercial: whether its terms allow commercial use; None where unclear.
        citation: how to cite it.
        homepage: the publisher's page.
        sources: where its images come from ("TCGA", "GlaS", ...), to find shared sources.
        archives: files to download; empty where a form or login is needed.
        obtain: the exact steps to get the data by hand.
        folder: the dataset's folder below `data.root`.
        images: how many labelled images are published; 0 where that is not told.
        extent: usual or mean width and height of these images in pixels.
        disk_gb: about how many GB of disk its files take as published, unpacked, from their number
            and usual size; 0 where that is not known.
        mpp: um per pixel of the published images; 0 where unknown.
        patch_size: default side of stored patches in pixels.
        view: how images become patches.
        tasks: what it teaches.
        layout: files and folders that must exist, as glob patterns below its folder.
        grouping: what a group is: "patient", "slide", "image", ...
        split_overlap: why groups lie on two sides of the *published* split; empty where they
            must not.
        options_type: dataclass of the reader's own options.
    """

    title: ClassVar[str]
    organs: ClassVar[tuple[str, ...]]
    licence: ClassVar[str]
    commercial: ClassVar[bool | None] = None
    citation: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    sources: ClassVar[tuple[str, ...]] = ()
    archives: ClassVar[tuple[Archive, ...]] = ()
    obtain: ClassVar[str] = ""
    folder: ClassVar[str]
    images: ClassVar[int] = 0
    extent: ClassVar[tuple[int, int]] = (0, 0)
    disk_gb: ClassVar[float] = 0.0
    mpp: ClassVar[float] = 0.0
    patch_size: ClassVar[int] = 256
    view: ClassVar[View] = View.TILE
    tasks: ClassVar[tuple[Task, ...]]
    layout: ClassVar[tuple[str, ...]] = ()
    grouping: ClassVar[str] = "patient"
    split_overlap: ClassVar[str] = ""
    options_type: ClassVar[type[Any]] = NoOptions

    def __init__(
        self,
        data: DataConfig | None = None,
        config: DatasetConfig | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        self.data = data or DataConfig()
        self.config = config or DatasetConfig()
        self.name: str = name or self.folder
        self.options = self._typed_options()

    # ---- what a reader defines -------------------------------------------------------------

    def records(self, root: Path) -> Iterator[Record]:
        """Read the publisher's layout below `root`, one record per image, in a fixed order.

        Raises:
            LayoutError: something does not fit the official layout.
        """
        raise TypeError(f"{type(self).__name__} does not define records()")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Write a synthetic copy of about `images` images in the publisher's layout."""
        raise TypeError(f"{cls.__name__} cannot be forged")

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """The tasks of the data below `root`; only conventions for own data must look."""
        return self.tasks

    def native_mpp(self) -> float:
        """um per pixel of the published images; 0 where unknown."""
        return self.mpp

    def cutter(self, tasks: tuple[Task, ...]) -> Cutter:
        """How images become patches; a reader changes it where its options say so."""
        return Cutter(tasks, self.side, self.view, self.target_mpp)

    # ---- where things lie -----------------------------------------------------------------

    @property
    def placed(self) -> str:
        """Where the dataset lies below `data.root`."""
        return self.config.folder or self.folder

    @property
    def root(self) -> Path:
        """The folder with the dataset as published."""
        return Path(self.data.root) / self.placed

    @property
    def side(self) -> int:
        """Side of a stored patch in pixels."""
        return self.config.patch_size or self.patch_size

    @property
    def target_mpp(self) -> float:
        """Wanted um per pixel of stored tiles."""
        return self.data.mpp if self.config.mpp is None else self.config.mpp

    @property
    def compressed(self) -> bool:
        """Whether the store keeps pixels encoded."""
        return (self.config.compression or self.data.compression) is Compression.lossless

    def settings(self) -> dict[str, Any]:
        """Everything that decides what a store of this dataset holds."""
        return {
            "reader": f"{type(self).__module__}.{type(self).__name__}",
            "options": asdict(self.options),
            "side": self.side,
            "mpp": self.target_mpp,
            "view": str(self.view),
            "compressed": self.compressed,
            "schema": SCHEMA,
        }

    @property
    def store_path(self) -> Path:
        """The store for these settings; other settings have another file."""
        text = json.dumps(self.settings(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return Path(self.data.stores) / f"{self.name}-{digest}.h5"

    @cached_property
    def store(self) -> Store:
        """The prepared store."""
        return Store(self.store_path)

    def check_layout(self) -> None:
        """Check that the publisher's files are there.

        Raises:
            DatasetNotFoundError: says what was looked for, where, and how to get it.
        """
        if not self.root.is_dir():
            raise DatasetNotFoundError(f"{self.name}: no folder {self.root}; {self._remedy()}")
        for pattern in self.layout:
            if next(self.root.glob(pattern), None) is None:
                raise DatasetNotFoundError(
                    f"{self.name}: nothing matches '{pattern}' in {self.root}; {self._remedy()}"
                )

    def _remedy(self) -> str:
        if self.obtain:
            return self.obtain
        if self.archives:
            return f"fetch it from {self.homepage} and unpack it there"
        return "set data.root or the dataset's folder"

    # ---- splits ---------------------------------------------------------------------------

    def rows(self, split: str) -> NDArray[np.int64]:
        """Rows of the store that belong to a split.

        Where nothing is published as validation, a share of the training groups is held out,
        chosen by the seed; where there is one group only, validation is empty.
        """
        published = np.asarray(self.store.split)
        if split == "test" or (published == SPLITS.index("val")).any():
            rows = np.flatnonzero(published == SPLITS.index(split))
        else:
            train = published == SPLITS.index("train")
            held_out = np.isin(self.store.group, self._held_out(self.store.group[train]))
            rows = np.flatnonzero(train & (held_out if split == "val" else ~held_out))
        if split == "val" and 0 < self.data.val_limit < len(rows):
            rng = np.random.default_rng(self.data.seed)
            rows = np.sort(rng.choice(rows, self.data.val_limit, replace=False))
        return rows

    def _held_out(self, groups: NDArray[np.int32]) -> NDArray[np.int32]:
        names, counts = np.unique(groups, return_counts=True)
        order = np.random.default_rng(self.data.seed).permutation(len(names))
        wanted = self.data.val_fraction * len(groups)
        before = np.cumsum(counts[order]) - counts[order]
        chosen = order[before < wanted][: len(names) - 1]  # training keeps at least one group
        return np.asarray(names[chosen], np.int32)

    def view_of(self, split: str, size: int | None = None) -> StoreView:
        """The rows of a split with the transform that suits it ("all": every row, plain)."""
        size = size or self.data.image_size
        rows = np.arange(len(self.store)) if split == "all" else self.rows(split)
        augmentation = self.data.augmentation if split == "train" else None
        transform = Transform(size, self.store.tasks, augmentation)
        return StoreView(self.name, self.store, rows, transform)

    def weighted_tasks(self) -> tuple[Task, ...]:
        """The prepared tasks, with the loss weights of the configuration.

        Raises:
            ConfigError: a weight is given for a task that the dataset does not have.
        """
        names = [task.name for task in self.store.tasks]
        for name in [*self.config.weights, *self.config.class_weights]:
            if name not in names:
                key = "weights" if name in self.config.weights else "class_weights"
                raise ConfigError(
                    f"data.*.{self.name}.{key}: no task '{name}'; known: {', '.join(names)}"
                )
        return tuple(
            replace(task, weight=self.config.weights.get(task.name, task.weight))
            for task in self.store.tasks
        )

    def input_mpp(self, size: int | None = None) -> float:
        """um per pixel at the network input when a whole patch fills it; 0 where unknown."""
        return self.store.mpp * self.store.side / (size or self.data.image_size)

    # ---- LightningDataModule --------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """Images per round."""
        return self.config.batch_size or self.data.batch_size

    def prepare_data(self) -> None:
        """Write the store where it is missing or outdated."""
        from datamodules.prepare import prepare

        prepare(self)

    def train_dataloader(self) -> StreamLoader:
        """Augmented micro-batches of this dataset alone, one epoch being one pass."""
        view = self.view_of("train")
        classes = (rows_by_class(self.store, view.rows, self.config.balance, self.name),)
        stream = Stream((len(view),), (self.batch_size,), 1, self.data.seed, classes=classes)
        length = -(-len(view) // self.batch_size)
        sampler = TrainSampler(stream, length, lambda: micro_batches_trained(self.trainer))
        return make_loader([view], sampler, self.data.image_size, self.data.workers)

    def val_dataloader(self) -> StreamLoader:
        """Validation images, each once."""
        return self._sweep(self.view_of("val"))

    def test_dataloader(self) -> StreamLoader:
        """Test images, each once."""
        return self._sweep(self.view_of("test"))

    def evaluation_loader(self, input_size: int, batch_size: int) -> StreamLoader:
        """All images of the store in order, unchanged but for their size in pixels."""
        view = self.view_of("all", input_size)
        sampler = SweepSampler((len(view),), batch_size)
        return make_loader([view], sampler, input_size, self.data.workers)

    def _sweep(self, view: StoreView) -> StreamLoader:
        sampler = SweepSampler((len(view),), self.batch_size)
        return make_loader([view], sampler, self.data.image_size, self.data.workers)

    def _typed_options(self) -> Any:
        try:
            merged = OmegaConf.merge(OmegaConf.structured(self.options_type), self.config.options)
            return OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"data.*.{self.name}.options: {reason}") from error
