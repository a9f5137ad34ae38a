"""Sources of images to embed: a folder of files, or a prepared store."""

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

_READERS = 4  # threads; decoding releases Python's lock


class Source(Protocol):
    """Images in a fixed order.

    Attributes:
        digest: a digest that changes with the images.
        attributes: facts about all images, by name.
    """

    digest: str
    attributes: Mapping[str, Any]

    def __len__(self) -> int: ...

    def read(self, rows: range) -> NDArray[np.uint8]:
        """Return images at the size of the network's input, (n, size, size, 3) uint8."""

    def columns(self) -> Mapping[str, Any]:
        """Return what is stored beside the features: by name, one row per image."""


class ImageFolder:
    """All image files below a folder, in order of path.

    An image is scaled until its shorter side is `size` pixels, and its centre is used. The only
    column is `paths`, relative to the folder.

    Raises:
        DatasetNotFoundError: the folder holds no image.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self.paths:
            raise DatasetNotFoundError(f"{folder}: no image file there or below")
        facts = [(path, path.stat()) for path in self.paths]
        text = "".join(f"{path}|{stat.st_size}|{stat.st_mtime_ns}\n" for path, stat in facts)
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.attributes: Mapping[str, Any] = {"source": str(folder)}
        self._tiler = Tiler((), size, View.WHOLE, 0.0)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: range) -> NDArray[np.uint8]:
        """Decode images.

        Raises:
            ImageError: an image does not decode.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            return np.stack(list(pool.map(self._read_one, self.paths[rows.start : rows.stop])))

    def columns(self) -> Mapping[str, Any]:
        """Return the paths."""
        return {"paths": [str(path.relative_to(self.folder)) for path in self.paths]}

    def _read_one(self, path: Path) -> NDArray[np.uint8]:
        return self._tiler.cut(read_image(path), {}, 0.0)[0].image


class StorePatches:
    """All patches of a prepared store, in its order, scaled to `size` pixels as in probes.

    Columns are `paths` of the sources, `coordinates` in their pixels, `splits` and `groups`.

    Raises:
        StoreError: the store is missing or damaged.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.store = Store(path)
        self.digest = self.store.digest
        self.attributes: Mapping[str, Any] = {
            "source": str(path),
            "store_digest": self.digest,
            "mpp": self.store.mpp,  # 0 if unknown
            "patch_size": self.store.side,
        }
        self._transform = Transform(size, ())

    def __len__(self) -> int:
        return len(self.store)

    def read(self, rows: range) -> NDArray[np.uint8]:
        """Read and scale patches."""
        images = self.store.images(np.arange(rows.start, rows.stop))
        return np.stack([self._transform(image, {}, 0)[0] for image in images])

    def columns(self) -> Mapping[str, Any]:
        """Return origin, split and group of every patch."""
        with h5py.File(self.store.path, "r") as file:
            names = file["sources"].asstr()[:]
            paths, coordinates = names[file["source"][:]].tolist(), file["xy"][:]
        return {
            "paths": paths,
            "coordinates": coordinates,
            "splits": [SPLITS[number] for number in self.store.split],
            "groups": [self.store.group_names[number] for number in self.store.group],
        }
