"""Where images to embed come from: a folder of files, or a prepared store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.records import SPLITS
from datamodules.formats.images import IMAGE_SUFFIXES, read_image
from datamodules.store.reader import Store
from datamodules.store.tiling import Tiler, View
from datamodules.stream.transforms import Transform

_READERS = 4  # threads; decoding leaves Python's lock


class Source(Protocol):
    """Images in a fixed order, each of them once."""

    def __len__(self) -> int:
        """How many."""

    def identity(self) -> str:
        """A digest that changes when the images do."""

    def read(self, rows: range) -> NDArray[np.uint8]:
        """Some of them at the network's input size, uint8 (n, size, size, 3)."""

    def columns(self) -> Mapping[str, Any]:
        """What is kept beside the features, by name, a row for each image."""

    def attributes(self) -> Mapping[str, Any]:
        """What is true of all of them."""


class ImageFolder:
    """Every image file below a folder, in order of path.

    An image is scaled until its shorter side fits the input, and its centre is taken.

    Args:
        folder: searched with all folders below it.
        size: side of the network input in pixels.

    Raises:
        DatasetNotFoundError: no image lies there.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self.paths:
            raise DatasetNotFoundError(f"{folder}: no image file there or below")
        self._tiler = Tiler((), size, View.WHOLE, 0.0)

    def __len__(self) -> int:
        return len(self.paths)

    def identity(self) -> str:
        """Digest of names, sizes and times of the files."""
        total = hashlib.sha256()
        for path in self.paths:
            facts = path.stat()
            total.update(f"{path}|{facts.st_size}|{facts.st_mtime_ns}\n".encode())
        return total.hexdigest()

    def read(self, rows: range) -> NDArray[np.uint8]:
        """Decode some.

        Raises:
            ImageError: an image does not decode.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(self._one, self.paths[rows.start : rows.stop])
            return np.stack(list(found))

    def columns(self) -> Mapping[str, Any]:
        """`paths`, relative to the folder."""
        return {"paths": [str(path.relative_to(self.folder)) for path in self.paths]}

    def attributes(self) -> Mapping[str, Any]:
        """The folder."""
        return {"source": str(self.folder)}

    def _one(self, path: Path) -> NDArray[np.uint8]:
        return self._tiler.cut(read_image(path), {}, 0.0)[0].image


class StorePatches:
    """Every patch of a prepared store, in its order, scaled to the input as in probes.

    Args:
        path: the .h5 file.
        size: side of the network input in pixels.

    Raises:
        StoreError: there is no such store, or it is damaged.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.store = Store(path)
        self._transform = Transform(size, ())

    def __len__(self) -> int:
        return len(self.store)

    def identity(self) -> str:
        """The store's own digest of its content."""
        return self.store.digest

    def read(self, rows: range) -> NDArray[np.uint8]:
        """Read and scale some."""
        images = self.store.images(np.arange(rows.start, rows.stop))
        return np.stack([self._transform(image, {}, 0)[0] for image in images])

    def columns(self) -> Mapping[str, Any]:
        """`paths` of the sources, `coordinates` in their pixels, `splits` and `groups`."""
        with h5py.File(self.store.path, "r") as file:
            names = file["sources"].asstr()[:]
            paths, coordinates = names[file["source"][:]].tolist(), file["xy"][:]
        return {
            "paths": paths,
            "coordinates": coordinates,
            "splits": [SPLITS[number] for number in self.store.split],
            "groups": [self.store.group_names[number] for number in self.store.group],
        }

    def attributes(self) -> Mapping[str, Any]:
        """The store, its digest, and um/px of its patches (0 where unknown)."""
        return {
            "source": str(self.store.path),
            "store_digest": self.store.digest,
            "mpp": self.store.mpp,
            "patch_size": self.store.side,
        }
