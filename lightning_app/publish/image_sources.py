"""Sources of images to embed: a folder of files, a prepared store, the tiles of a slide."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.core.errors import DatasetNotFoundError, ImageError, UserError
from datamodules.core.notes import Notes, collecting
from datamodules.core.records import SPLITS
from datamodules.formats.images import read_image
from datamodules.formats.layout import walk_images
from datamodules.slides.tiles import SlideTiles, Tiling
from datamodules.store.reader import Store
from datamodules.store.tiling import Tiler, View
from datamodules.stream.loading import init_worker
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
    """All image files below a folder, in order of path, without junk and hidden folders.

    An image is scaled until its shorter side is `size` pixels, and its centre is used. The only
    column is `paths`, relative to the folder.

    Attributes:
        notes: what was passed over or odd so far.

    Raises:
        DatasetNotFoundError: the folder holds no image.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        with collecting() as self.notes:
            self.paths = walk_images(folder)
        if not self.paths:
            raise DatasetNotFoundError(f"{folder}: no image file there or below")
        facts = [(path, path.stat()) for path in self.paths]
        text = "".join(f"{path}|{stat.st_size}|{stat.st_mtime_ns}\n" for path, stat in facts)
        self.digest = hashlib.sha256(os.fsencode(text)).hexdigest()
        self.attributes: Mapping[str, Any] = {
            "source": os.fsencode(folder).decode("utf-8", "backslashreplace")
        }
        self._tiler = Tiler((), size, View.WHOLE, 0.0)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: range) -> NDArray[np.uint8]:
        """Decode images.

        Raises:
            ImageError: an image does not decode.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(self._read_one, self.paths[rows.start : rows.stop]))
        for _, notes in found:
            self.notes.merge(notes)
        return np.stack([image for image, _ in found])

    def columns(self) -> Mapping[str, Any]:
        """Return the paths."""
        return {"paths": [str(path.relative_to(self.folder)) for path in self.paths]}

    def _read_one(self, path: Path) -> tuple[NDArray[np.uint8], Notes]:
        with collecting() as notes:
            image = read_image(path)
        try:
            return self._tiler.cut(image, {}, 0.0)[0].image, notes
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error


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
        names = self.store.source_names
        return {
            "paths": [names[number] for number in self.store.source_numbers],
            "coordinates": self.store.corners,
            "splits": [SPLITS[number] for number in self.store.split],
            "groups": [self.store.group_names[number] for number in self.store.group],
        }


class SlidePatches:
    """The tiles of a slide that hold tissue.

    The only column is `coords`, (n, 2) int64: corners in pixels of level 0. The attributes are
    named as TRIDENT and CLAM name them. `patch_size` counts pixels of a tile as it is embedded,
    `patch_size_level0` those of level 0; it is read from `patch_level`.

    Raises:
        SlideError: see `SlideTiles`.
    """

    def __init__(self, path: Path, tiling: Tiling) -> None:
        self.tiles = SlideTiles(path, tiling)
        stat = path.stat()
        settled = f"{path.name}|{stat.st_size}|{stat.st_mtime_ns}|{tiling}"
        places = hashlib.sha256(os.fsencode(settled) + self.tiles.corners.tobytes())
        self.digest = places.hexdigest()
        self.attributes: Mapping[str, Any] = {
            "name": path.stem,
            "source": str(path),
            "source_digest": self.digest,
            "patch_size": tiling.side,
            "patch_size_level0": round(self.tiles.span),
            "patch_level": self.tiles.level,
            "downsample": self.tiles.slide.levels[self.tiles.level].downsample,
            "overlap": tiling.overlap,
            "mpp": tiling.mpp,
            "level0_mpp": self.tiles.slide_mpp,
            "level0_width": self.tiles.width,
            "level0_height": self.tiles.height,
        }

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, rows: range) -> NDArray[np.uint8]:
        """Read tiles.

        Raises:
            SlideError: a tile does not decode.
        """
        return np.asarray(self.tiles.read(rows), np.uint8)

    def columns(self) -> Mapping[str, Any]:
        """Return the corners."""
        return {"coords": self.tiles.corners}


class Readable(Protocol):
    """Images by row, as `Source` reads them."""

    def __len__(self) -> int: ...

    def read(self, rows: range) -> NDArray[np.uint8]:
        """Return images, (n, size, size, 3)."""


def in_batches(
    source: Readable, batch_size: int, readers: int, start: int = 0
) -> Iterator[tuple[range, Tensor]]:
    """Yield rows from `start` on and their images, read ahead by so many processes.

    Each process holds two batches at most, so the memory does not depend on the source.

    Raises:
        UserError: an image cannot be read.
    """
    stops = range(start + batch_size, len(source) + batch_size, batch_size)
    batches = [range(stop - batch_size, min(stop, len(source))) for stop in stops]
    loader = DataLoader(
        _Batches(source, batches),
        batch_size=None,
        num_workers=min(readers, len(batches)),
        prefetch_factor=2 if min(readers, len(batches)) else None,
        worker_init_fn=init_worker,
        generator=torch.Generator().manual_seed(0),
    )
    for rows, found in zip(batches, loader, strict=True):
        if isinstance(found, UserError):
            raise found
        yield rows, found


class _Batches(Dataset[Any]):
    """Batches by number; an error is returned, because a loader would wrap it in its traceback."""

    def __init__(self, source: Readable, batches: list[range]) -> None:
        self.source, self.batches = source, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Tensor | UserError:
        try:
            return torch.from_numpy(self.source.read(self.batches[number]))
        except UserError as error:
            return error
