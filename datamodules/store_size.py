"""The size of stores before they are written."""

import math
from collections.abc import Sequence
from pathlib import Path

from datamodules.core.disk_space import free_space, require_space
from datamodules.core.notes import collecting
from datamodules.core.records import Task, TaskKind
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View


def store_bytes(dataset: DatasetReader) -> int:
    """Estimate the size of a store from the published number and size of images.

    An upper bound: readers of mitoses omit most tiles without any object. 0 where the card lacks
    these facts, as for own data.
    """
    return dataset.images * _tiles(dataset) * _patch_bytes(dataset, dataset.tasks)


def require_room(datasets: Sequence[DatasetReader]) -> None:
    """Check that stores fit on their disk, before any of them is written.

    Images are counted only where the published number may not fit or is not known.

    Raises:
        DiskError: they do not fit.
        DatasetNotFoundError: a dataset that must be counted is missing.
    """
    if not datasets:
        return
    stores = Path(datasets[0].data.stores)
    if sum(store_bytes(dataset) or math.inf for dataset in datasets) > free_space(stores):
        needed = sum(_least_bytes(dataset) for dataset in datasets)
        require_space(stores, needed, "make room, or set data.stores to a larger disk")


def _least_bytes(dataset: DatasetReader) -> int:
    """Estimate a store's size from the images that are there; 0 where it will be compressed."""
    if dataset.compressed:
        return 0
    dataset.check_layout()
    tasks = dataset.tasks_in(dataset.root)
    omits = dataset.tiler(tasks).empty_share < 1
    with collecting():  # preparing notes the same again
        images = sum(1 for _ in dataset.read())
    whole = images >= dataset.images > 0 and not omits  # a part may be of other images
    return images * (_tiles(dataset) if whole else 1) * _patch_bytes(dataset, tasks)


def _tiles(dataset: DatasetReader) -> int:
    """Return the patches of an image of the usual size; at least 1."""
    tiler = dataset.tiler(dataset.tasks)
    scale = dataset.native_mpp() / tiler.mpp if dataset.native_mpp() and tiler.mpp else 1.0
    if tiler.view is not View.TILE or not all(dataset.extent):
        return 1
    return math.prod(math.ceil(round(px * scale) / tiler.side) for px in dataset.extent)


def _patch_bytes(dataset: DatasetReader, tasks: Sequence[Task]) -> int:
    return dataset.side**2 * (3 + sum(task.kind is TaskKind.SEGMENTATION for task in tasks))
