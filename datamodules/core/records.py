"""What a reader hands over: tasks, targets and records.

A reader walks over a dataset in its publisher's layout and yields one `Record` per image.
Pixels and dense targets are *lazy* (a path or a picklable call), so an index of a million
records stays small and can be spread over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""RGB image, uint8, shape (height, width, 3)."""

Mask = NDArray[np.uint8]
"""Class index per pixel, uint8, shape (height, width)."""

SPLITS = ("train", "val", "test")


class TaskKind(StrEnum):
    """The five kinds of task that a head exists for."""

    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    SEGMENTATION = "segmentation"
    DETECTION = "detection"
    REGRESSION = "regression"


@dataclass(frozen=True)
class Task:
    """One supervised task that a dataset carries.

    Attributes:
        name: unique within the dataset, e.g. "nuclei".
        kind: decides target type, head, loss and metrics.
        classes: class names in index order. Segmentation counts background as a class;
            detection names the foreground classes only; regression has none.
        ignore_index: segmentation pixels of this value carry no label.
        positive: the class whose F1 is reported when there are exactly two.
        low, high: the closed range of a bounded regression target; None means free.
        object_size_um: detection: typical diameter of an object in um; it chooses the stride.
        match_distance_um: detection: a prediction counts as a hit when its centre lies within
            this distance in um (mitosis challenges use 7.5 um).
        weight: factor of this task's loss.
    """

    name: str
    kind: TaskKind
    classes: tuple[str, ...] = ()
    ignore_index: int = 255
    positive: str | None = None
    low: float | None = None
    high: float | None = None
    object_size_um: float = 10.0
    match_distance_um: float = 7.5
    weight: float = 1.0


@dataclass(frozen=True)
class Boxes:
    """Objects of one image.

    Attributes:
        xyxy: float32 (n, 4), x1, y1, x2, y2 in pixels of the image, x to the right.
        labels: int64 (n,), index into the task's classes.
    """

    xyxy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.labels)


Target = int | float | NDArray[np.uint8] | Boxes
"""Per task kind: classification int; regression float; multilabel uint8 (classes,) of 0/1;
segmentation `Mask`; detection `Boxes`."""

Lazy = Callable[[], Target]

Targets = Mapping[str, Target | Lazy]
"""The targets of a record by task name."""


@dataclass(frozen=True)
class Record:
    """One image of a dataset with all its targets.

    Attributes:
        source: where it comes from, relative to the dataset's folder, unique within the
            dataset ("Fold 1/images/fold1/images.npy#17" for items of arrays).
        image: a path to decode, or a picklable call that returns the pixels.
        targets: by task name; a picklable call where the target is dense or costly.
        split: "train", "val" or "test" as published; "train" where nothing is published.
        group: patient, slide or case: what must never lie on two sides of a split.
        mpp: um per pixel of this image, where it differs from the dataset's.
    """

    source: str
    image: Path | Callable[[], Image]
    targets: Targets
    split: str
    group: str
    mpp: float | None = None


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


DOWNLOADS = ".downloads"
"""Folder below a dataset's own in which archives are fetched and unpacked."""
