"""One dataset as published: facts and a reader in the subclass, all shared behaviour here.

Nothing here needs torch or Lightning, so datasets can be listed, shown, prepared and verified
quickly; `datamodules.base` makes a LightningDataModule of a reader.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.config import Compression, DataConfig, DatasetConfig
from datamodules.core.errors import ConfigError, DatasetNotFoundError
from datamodules.core.options import ReaderOptions, read_options, stated_options
from datamodules.core.records import Archive, Record, Task
from datamodules.formats.tree import check_links
from datamodules.store.attributes import SCHEMA
from datamodules.store.identity import distinct
from datamodules.store.reader import Store
from datamodules.store.splits import rows_of_split
from datamodules.store.tiling import Tiler, View


class DatasetReader:
    """One public dataset: facts as class attributes, `records` and `forge` as behaviour.

    A subclass's docstring is the dataset's card. Options named `mpp`, `view` and `empty_share`
    take effect without further code.
    """

    key: ClassVar[str]  # its name in the registry and part of its stores' names; its module's name
    title: ClassVar[str]
    organs: ClassVar[tuple[str, ...]]  # or tissues
    licence: ClassVar[str]  # as the publisher states it
    commercial: ClassVar[bool | None] = None  # its terms allow commercial use; None if unclear
    citation: ClassVar[str] = ""
    homepage: ClassVar[str] = ""  # the publisher's page
    sources: ClassVar[tuple[str, ...]] = ()  # origins of its images, to find shared sources
    archives: ClassVar[tuple[Archive, ...]] = ()  # without address where they come by hand
    access: ClassVar[Literal["automatic", "by hand", "form", "login"]] = "automatic"
    obtain: ClassVar[str] = ""  # the exact steps to get the data by hand
    folder: ClassVar[str]  # below `data.root`; its key unless stated
    images: ClassVar[int] = 0  # number of labelled images published; 0 if unknown
    extent: ClassVar[tuple[int, int]] = (0, 0)  # their usual width and height in pixels
    disk_gb: ClassVar[float] = 0.0  # of its unpacked files, by their number and usual size
    download_gb: ClassVar[float] = 0.0  # where the archives do not state their bytes; 0 if unknown
    mpp: ClassVar[float] = 0.0  # µm per pixel of the published images; 0 if unknown
    patch_size: ClassVar[int] = 256  # default side of stored patches in pixels
    view: ClassVar[View] = View.TILE  # how images become patches
    tasks: ClassVar[tuple[Task, ...]]
    layout: ClassVar[tuple[str, ...]] = ()  # what must exist, as glob patterns below its folder
    grouping: ClassVar[str] = "patient"  # what a group is: "patient", "slide", "image", ...
    published_splits: ClassVar[tuple[str, ...]] = ("train",)  # empty if the data decide
    split_overlap: ClassVar[str] = ""  # why groups lie on both sides of the *published* split
    options_type: ClassVar[type[Any]] = ReaderOptions  # dataclass of the reader's own options

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "key" not in cls.__dict__:
            cls.key = cls.__module__.rpartition(".")[2]
        if not hasattr(cls, "folder"):
            cls.folder = cls.key
        if not cls.archives and "access" not in cls.__dict__:
            cls.access = "by hand"

    def __init__(
        self, data: DataConfig | None = None, config: DatasetConfig | None = None, name: str = ""
    ) -> None:
        self.data = data or DataConfig()
        self.config = config or DatasetConfig()
        self.name: str = name or self.folder
        where = f"data.*.{self.name}.options"
        self.options: Any = read_options(where, self.options_type, self.config.options)

    # ---- defined by a reader ---------------------------------------------------------------

    def records(self, root: Path) -> Iterator[Record]:
        """Read the publisher's layout below `root`, one record per image, in a fixed order."""
        raise TypeError(f"{type(self).__name__} does not define records()")

    def read(self) -> Iterator[Record]:
        """The records of the dataset's folder, each image once, each group in one spelling."""
        return distinct(self.root, self.records(self.root), bool(self.options.allow_missing))

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Write a synthetic copy of about `images` images in the publisher's layout."""
        raise TypeError(f"{cls.__name__} cannot be forged")

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """The tasks of the data below `root`; only conventions for own data must look."""
        return self.tasks

    def native_mpp(self) -> float:
        """µm per pixel of the published images, by the option `mpp` if any; 0 where unknown."""
        return float(getattr(self.options, "mpp", self.mpp))

    def tiler(self, tasks: tuple[Task, ...]) -> Tiler:
        """How images become patches, by the options `view` and `empty_share` if any."""
        view = getattr(self.options, "view", self.view)
        empty_share = getattr(self.options, "empty_share", 1.0)
        return Tiler(tasks, self.side, view, self.target_mpp, empty_share=empty_share)

    # ---- settings and paths ----------------------------------------------------------------

    @property
    def placed(self) -> str:
        """The dataset's folder relative to `data.root`."""
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
    def batch_size(self) -> int:
        """Images per round."""
        return self.config.batch_size or self.data.batch_size

    @property
    def target_mpp(self) -> float:
        """Wanted µm per pixel of stored tiles."""
        return self.data.mpp if self.config.mpp is None else self.config.mpp

    @property
    def compressed(self) -> bool:
        """Whether the store keeps pixels encoded."""
        return (self.config.compression or self.data.compression) is Compression.lossless

    def settings(self) -> dict[str, Any]:
        """All settings that decide the content of the store."""
        return {
            "reader": self.key,
            "options": stated_options(self.options),
            "side": self.side,
            "mpp": self.target_mpp,
            "view": str(self.view),
            "compressed": self.compressed,
            "schema": SCHEMA,
        }

    @property
    def store_path(self) -> Path:
        """The store for these settings; other settings have another file."""
        path = self._store_file(self.key)
        if not path.exists():
            # Older stores: their file name hashes the module path that the reader had then.
            module = type(self).__module__
            if module.startswith("datamodules."):
                module = f"datamodules.{self.key}"
            former = self._store_file(f"{module}.{type(self).__name__}")
            if former.is_file():
                return former
        return path

    def _store_file(self, reader: str) -> Path:
        text = json.dumps({**self.settings(), "reader": reader}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return Path(self.data.stores) / f"{self.name}-{digest}.h5"

    def check_layout(self) -> None:
        """Raise a DatasetNotFoundError where files are missing, and check links (`check_links`)."""
        missing = "" if self.root.is_dir() else f"no folder {self.root}"
        for pattern in self.layout:
            if not missing and next(self.root.glob(pattern), None) is None:
                missing = f"nothing matches '{pattern}' in {self.root}"
        if missing:
            fetch = f"`python -m lightning_app datasets download {self.key}` fetches it"
            automatic = self.archives and self.access == "automatic"
            remedy = fetch if automatic else self.obtain or "set data.root or the dataset's folder"
            raise DatasetNotFoundError(f"{self.name}: {missing}; {remedy}")
        check_links(self.root, self.config.follow_links)

    # ---- the prepared store ----------------------------------------------------------------

    @cached_property
    def store(self) -> Store:
        """The prepared store."""
        return Store(self.store_path)

    def rows(self, split: str, store: Store | None = None) -> NDArray[np.int64]:
        """Rows of the store (or of another one) that belong to a split (see `rows_of_split`)."""
        chosen, data = self.store if store is None else store, self.data
        return rows_of_split(chosen, split, data.val_fraction, data.val_limit, data.seed)

    def weighted_tasks(self) -> tuple[Task, ...]:
        """The prepared tasks with their configured weights; an unknown task is a ConfigError."""
        names = [task.name for task in self.store.tasks]
        weights = self.config.weights
        for name in [*weights, *self.config.class_weights]:
            if name not in names:
                key = f"data.*.{self.name}.{'weights' if name in weights else 'class_weights'}"
                raise ConfigError(f"{key}: no task '{name}'; known: {', '.join(names)}")
        return tuple(replace(t, weight=weights.get(t.name, t.weight)) for t in self.store.tasks)

    def input_mpp(self) -> float:
        """µm per pixel at the network input when a whole patch fills it; 0 if unknown."""
        return self.store.mpp * self.store.side / self.data.image_size
