"""Cells: the places of an image whose frozen features a dense probe classifies.

All encoders are compared on one grid, whatever their patches: a cell is 16 x 16 pixels of the
network's input. A predictor learns the class of single cells from the features of the same place,
so it is a linear layer (or a forest) on the frozen dense features, and nothing of it sees the
neighbourhood. Labelled subsets consist of whole images, and intervals resample patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import ProbeError
from datamodules.core.records import Task, TaskKind

if TYPE_CHECKING:
    from torch import Tensor

    from datamodules.base import PathologyDataModule
    from datamodules.reader import DatasetReader

CELL = 16  # pixels of the network's input on a side
SAMPLE = 32
"""Cells drawn from each image for segmentation: neighbours are alike, so more add time, not
information. The draw is the same for every encoder and leaves Dice unbiased."""


@dataclass(frozen=True)
class Cells:
    """Cells of all images of a store, by image and then by place."""

    image: NDArray[np.int64]  # row of the store, (n,), ascending
    place: NDArray[np.int64]  # number in the grid, row by row, (n,)
    target: NDArray[np.int64]  # class, (n,)
    amount: NDArray[np.float32]  # share of each image's cells that are not of class 0, (images,)
    side: int  # of the grid

    def pick(self, maps: Tensor, images: NDArray[np.int64]) -> tuple[NDArray[np.float32], Places]:
        """Return the features of the cells of some images, and their numbers.

        Args:
            maps: (m, channels, height, width), of these images.
            images: their rows in the store, (m,).
        """
        from torch.nn.functional import interpolate

        size = [self.side, self.side]
        mode = "area" if maps.shape[-1] > self.side else "bilinear"
        grid = interpolate(maps.float(), size, mode=mode).flatten(2)
        ends = np.searchsorted(self.image, [images, images + 1])
        numbers = [np.arange(start, end) for start, end in ends.T]
        parts = [grid[i][:, self.place[of_image]].T.numpy() for i, of_image in enumerate(numbers)]
        return np.concatenate(parts), np.concatenate(numbers)


Places = NDArray[np.int64]


def dense_task(data: DatasetReader | PathologyDataModule) -> Task:
    """Return the task that `data.unseen.<dataset>.dense` names.

    Raises:
        ProbeError: there is no such segmentation or detection task, or another target as well.
    """
    key = f"data.unseen.{data.name}.dense={data.config.dense}"
    kinds = (TaskKind.SEGMENTATION, TaskKind.DETECTION)
    known = [task for task in data.store.tasks if task.kind in kinds]
    if data.config.area_share:
        raise ProbeError(f"{key}: excludes area_share; name the dataset twice to probe both")
    for task in known:
        if task.name == data.config.dense:
            return task
    names = ", ".join(task.name for task in known) or "none"
    raise ProbeError(f"{key}: no segmentation or detection task; it has {names}")


def classes_of(task: Task) -> tuple[tuple[str, ...], int | None]:
    """Return the classes of cells, and which one counts: None for the mean over all."""
    if task.kind is TaskKind.DETECTION:
        return ("nothing", task.positive or "object"), 1
    if len(task.classes) > 2:
        return task.classes, None
    return task.classes, task.classes.index(task.positive) if task.positive else 1


def cells_of(data: DatasetReader | PathologyDataModule, input_size: int) -> Cells:
    """Return the cells of a dataset's images.

    Of segmentation: the most frequent class of a cell's labelled pixels; cells with less than half
    of their pixels labelled do not count, and `SAMPLE` of the others are drawn from each image. Of
    detection: whether a cell holds the centre of an object (of the positive class, if the task has
    one); all cells count.

    Raises:
        ProbeError: no cell is labelled.
    """
    task, side = dense_task(data), max(1, input_size // CELL)
    images, places, targets = [], [], []
    amount = np.zeros(len(data.store), np.float32)
    for row in range(len(data.store)):
        if task.kind is TaskKind.DETECTION:
            target = _with_centre(data, task, row, side)
            chosen = np.arange(side * side)
        else:
            mask = data.store.masks(task.name, [row])[0]
            target, chosen = _majority(mask, len(task.classes), task.ignore_index, side)
        amount[row] = (target[chosen] > 0).mean() if len(chosen) else 0
        if task.kind is TaskKind.SEGMENTATION and len(chosen) > SAMPLE:
            chosen = np.sort(np.random.default_rng(row).permutation(chosen)[:SAMPLE])
        images.append(np.full(len(chosen), row))
        places.append(chosen)
        targets.append(target[chosen])
    if not sum(map(len, places)):
        raise ProbeError(f"{data.store.path}: no cell of {task.name} is labelled")
    image, place, target = (np.concatenate(p).astype(np.int64) for p in (images, places, targets))
    return Cells(image, place, target, amount, side)


def _majority(
    mask: NDArray[np.uint8], classes: int, ignored: int, side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the class of every cell, and the cells of which half is labelled."""
    rows, columns = (np.arange(n) * side // n for n in mask.shape)
    cell = rows[:, None] * side + columns
    labelled = mask != ignored
    index = cell[labelled] * classes + mask[labelled]
    counts = np.bincount(index, minlength=side * side * classes).reshape(-1, classes)
    enough = 2 * counts.sum(1) >= np.bincount(cell.ravel(), minlength=side * side)
    return counts.argmax(1), np.flatnonzero(enough & (counts.sum(1) > 0))


def _with_centre(
    data: DatasetReader | PathologyDataModule, task: Task, row: int, side: int
) -> NDArray[np.int64]:
    """Return 1 for cells that hold the centre of an object that counts, else 0."""
    boxes = data.store.boxes(task.name, row)
    counted = boxes.xyxy
    if task.positive:
        counted = counted[boxes.labels == task.classes.index(task.positive)]
    centres = (counted[:, :2] + counted[:, 2:]) / 2 * side / data.store.side
    x, y = np.clip(centres.astype(np.int64), 0, side - 1).T
    found = np.zeros(side * side, np.int64)
    found[y * side + x] = 1
    return found
