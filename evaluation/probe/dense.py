"""Dense probes: a predictor on the frozen features of single places, scored on the whole image.

All encoders are compared on one grid, whatever their patches: a cell is 16 x 16 pixels of the
network's input. A predictor learns the class of single cells from the features of the same place,
so it is a linear layer (or a forest) on the frozen dense features, and nothing of it sees the
neighbourhood. Its probabilities are interpolated between the centres of cells, bilinearly as
segmentation heads do, to the pixels of the patch. There the most probable class is compared with
the mask, or the peaks of a map with the centres of objects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import ProbeError
from datamodules.core.records import Task, TaskKind
from models.metrics.matching import match_centres

if TYPE_CHECKING:
    from torch import Tensor

    from datamodules.base import PathologyDataModule
    from datamodules.reader import DatasetReader
    from datamodules.store.reader import Store

CELL = 16  # pixels of the network's input on a side
SAMPLE = 32
"""Cells of each image that a predictor of segmentation learns from: neighbours are alike, so more
add time, not information. The draw is the same for every encoder."""

_AROUND = np.ones((3, 3), np.uint8)

Integers = NDArray[np.int64]
Chances = NDArray[np.float32]  # probabilities of a grid's cells, (cells, classes)


@dataclass(frozen=True)
class DenseTruth:
    """A dense task on some images: what predictors learn, and what their output is compared with.

    Everything is by image; `counts` and `peaks` take the position of one among them.
    """

    store: Store
    task: Task
    rows: Integers  # of the store, (n,), ascending
    side: int  # of the grid
    cells: Integers  # class of each cell, -1 where no predictor learns from it, (n, side * side)
    amounts: Integers  # labelled pixels of each class, or number of objects, (n, classes or 1)
    distance: float = 0.0  # detection: pixels of a patch between a hit and its object, at most

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of cells."""
        if self.task.kind is TaskKind.DETECTION:
            return ("nothing", self.task.positive or "object")
        return self.task.classes

    @property
    def positive(self) -> int | None:
        """The class that counts; None for the mean over all."""
        if self.task.kind is TaskKind.DETECTION:
            return 1
        if len(self.classes) > 2:
            return None
        return self.classes.index(self.task.positive) if self.task.positive else 1

    @property
    def counted(self) -> Integers:
        """What the score counts of each image, pixels or objects, (n, k)."""
        chosen = 0 if self.task.kind is TaskKind.DETECTION else self.positive
        return self.amounts if chosen is None else self.amounts[:, [chosen]]

    @property
    def stratum(self) -> NDArray[np.float32]:
        """Share of the pixels that are not of class 0, or number of objects, (n,)."""
        if self.task.kind is TaskKind.DETECTION:
            return self.amounts[:, 0].astype(np.float32)
        total = np.maximum(self.amounts.sum(1), 1)
        return np.asarray(1 - self.amounts[:, 0] / total, np.float32)

    def among(self, positions: Integers) -> DenseTruth:
        """Return the same of some of the images."""
        names = ("rows", "cells", "amounts")
        return replace(self, **{name: getattr(self, name)[positions] for name in names})

    def counts(self, image: int, chances: Chances) -> Integers:
        """Return hits and predicted pixels of the counted classes, (2 * k,), of a segmentation."""
        mask = self.store.masks(self.task.name, [int(self.rows[image])])[0]
        labelled, n = mask != self.task.ignore_index, len(self.classes)
        grid = np.ascontiguousarray(chances.reshape(self.side, self.side, n), np.float32)
        pixels = cv2.resize(grid, mask.shape, interpolation=cv2.INTER_LINEAR)
        found = pixels.reshape(*mask.shape, n).argmax(-1)[labelled]
        joint = np.bincount(mask[labelled] * np.int64(n) + found, minlength=n * n).reshape(n, n)
        kept = range(n) if self.positive is None else [self.positive]
        return np.concatenate([joint.diagonal()[kept], joint.sum(0)[kept]])

    def peaks(self, image: int, chances: Chances) -> tuple[Chances, NDArray[np.bool_]]:
        """Return the scores of detections, descending, and which of them hit an object.

        A detection is a cell whose probability is the highest within one cell around it: there the
        interpolated map has its peaks.
        """
        chance = np.ascontiguousarray(chances[:, 1].reshape(self.side, self.side), np.float32)
        places = ((chance == cv2.dilate(chance, _AROUND)) & (chance > 0)).astype(np.uint8)
        _, label, _, middle = cv2.connectedComponentsWithStats(places)
        among = np.flatnonzero(places)  # a plateau is one detection
        score = chance.ravel()[among[np.unique(label.ravel()[among], return_index=True)[1]]]
        order = np.argsort(-score, kind="stable")
        found = (middle[1:][order] + 0.5) * self.store.side / self.side
        return score[order], match_centres(found, self.centres(image), self.distance) >= 0

    def centres(self, image: int) -> NDArray[np.float64]:
        """Return the centres of the objects that count, (m, 2) in pixels of the patch."""
        boxes = self.store.boxes(self.task.name, int(self.rows[image]))
        counted = boxes.xyxy.astype(np.float64)
        if self.task.positive:
            counted = counted[boxes.labels == self.task.classes.index(self.task.positive)]
        return (counted[:, :2] + counted[:, 2:]) / 2

    def constant(self, pool: Integers, test: Integers) -> Integers:
        """Return the counts of the best prediction without looking at the test images, (t, 2 * k).

        The class that counts, or that is most frequent in the pool, at every pixel; detections in a
        square grid of twice the distance.
        """
        if self.task.kind is TaskKind.DETECTION:
            axis = np.arange(self.distance, self.store.side, 2 * self.distance)
            grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
            hits = [(match_centres(grid, self.centres(n), self.distance) >= 0).sum() for n in test]
            return np.stack([np.array(hits), np.full(len(test), len(grid))], 1)
        if self.positive is not None:
            return np.stack([self.amounts[test, self.positive], self.amounts[test].sum(1)], 1)
        result = np.zeros((len(test), 2 * len(self.classes)), np.int64)
        best = int(self.amounts[pool].sum(0).argmax())
        result[:, best] = self.amounts[test, best]
        result[:, best + len(self.classes)] = self.amounts[test].sum(1)
        return result


def cell_features(maps: Tensor, side: int) -> NDArray[np.float32]:
    """Return maps (n, d, height, width) at the cells of a grid, (n, side * side, d)."""
    from torch.nn.functional import interpolate

    mode = "area" if maps.shape[-1] > side else "bilinear"
    grid = interpolate(maps.float(), [side, side], mode=mode).flatten(2)
    return np.asarray(grid.transpose(1, 2).numpy(), np.float32)


def dense_truth(data: DatasetReader | PathologyDataModule, input_size: int) -> DenseTruth:
    """Return the truth of the task that `data.unseen.<dataset>.dense` names, of all images.

    Of segmentation, a cell has the most frequent class of its labelled pixels; predictors learn
    from `SAMPLE` cells of an image, each at least half labelled. Of detection, they learn from all
    cells whether one holds the centre of an object (of the positive class, if the task has one).

    Raises:
        ProbeError: there is no such task, another target as well, nothing is labelled, or a
            detection has no µm/px to measure the distance in.
    """
    task, store, side = _task(data), data.store, max(1, input_size // CELL)
    detects = task.kind is TaskKind.DETECTION
    if detects and not store.mpp:
        raise ProbeError(
            f"data.unseen.{data.name}.dense={task.name}: the size of a pixel is unknown, and hits "
            "are measured in µm; give the reader's option mpp"
        )
    n = len(store)
    cells = np.full((n, side * side), -1, np.int64)
    amounts = np.zeros((n, 1 if detects else len(task.classes)), np.int64)
    distance = task.match_distance_um / store.mpp if detects else 0.0
    truth = DenseTruth(store, task, np.arange(n), side, cells, amounts, distance)
    for row in range(n):
        if detects:
            centres = truth.centres(row)
            amounts[row], cells[row] = len(centres), 0
            x, y = np.clip((centres * side / store.side).astype(np.int64), 0, side - 1).T
            cells[row, y * side + x] = 1
        else:
            mask = store.masks(task.name, [row])[0]
            classes = np.bincount(mask[mask != task.ignore_index], minlength=len(task.classes))
            amounts[row] = classes[: len(task.classes)]
            target, chosen = _majority(mask, len(task.classes), task.ignore_index, side)
            chosen = np.random.default_rng(row).permutation(chosen)[:SAMPLE]
            cells[row, chosen] = target[chosen]
    if (cells < 0).all():
        raise ProbeError(f"{store.path}: no cell of {task.name} is labelled")
    return truth


def _task(data: DatasetReader | PathologyDataModule) -> Task:
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


def _majority(
    mask: NDArray[np.uint8], classes: int, ignored: int, side: int
) -> tuple[Integers, Integers]:
    """Return the class of every cell, and the cells of which half is labelled."""
    rows, columns = (np.arange(n) * side // n for n in mask.shape)
    cell: NDArray[Any] = rows[:, None] * side + columns
    labelled = mask != ignored
    index = cell[labelled] * classes + mask[labelled]
    counts = np.bincount(index, minlength=side * side * classes).reshape(-1, classes)
    enough = 2 * counts.sum(1) >= np.bincount(cell.ravel(), minlength=side * side)
    return counts.argmax(1), np.flatnonzero(enough & (counts.sum(1) > 0))
