"""What a reader yields: tasks, targets and records.

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
"""RGB image, (height, width, 3) uint8."""

Mask = NDArray[np.uint8]
"""Class index per pixel, (height, width) uint8."""

SPLITS = ("train", "val", "test")

DOWNLOADS = ".downloads"
"""Folder in a dataset's own folder in which archives are downloaded and unpacked."""


class TaskKind(StrEnum):
    """The five kinds of task that have a head."""

    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    SEGMENTATION = "segmentation"
    DETECTION = "detection"
    REGRESSION = "regression"


@dataclass(frozen=True)
class Task:
    """One supervised task of a dataset.

    Attributes:
        name: unique within the dataset, e.g. "nuclei".
        kind: decides target type, head, loss and metrics.
        classes: class names in index order. Segmentation counts background as a class;
            detection names the foreground classes only; regression has none.
        ignore_index: segmentation pixels of this value carry no label.
        positive: the class whose F1 is reported if there are exactly two; of detection the only
            one that counts.
        low, high: the closed range of a bounded regression target; None if unbounded.
        object_size_um: detection: typical diameter of an object in µm; selects the stride.
        match_distance_um: detection: a prediction is a hit if its centre lies within this
            distance in µm (mitosis challenges use 7.5 µm).
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
        xyxy: (n, 4) float32; x1, y1, x2, y2 in pixels of the image, x to the right.
        labels: (n,) int64, index into the task's classes.
    """

    xyxy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.labels)


Target = int | float | NDArray[np.uint8] | Boxes
"""By task kind: classification int; regression float; multilabel (classes,) uint8 of 0 and 1;
segmentation `Mask`; detection `Boxes`."""

Lazy = Callable[[], Target]

Targets = Mapping[str, Target | Lazy]
"""The targets of a record by task name."""


@dataclass(frozen=True)
class Record:
    """One image of a dataset with all its targets.

    Attributes:
        source: path relative to the dataset's folder, unique within the dataset
            ("Fold 1/images/fold1/images.npy#17" for items of arrays).
        image: a path to decode, or a picklable call that returns the pixels.
        targets: by task name; a picklable call if the target is dense or costly.
        split: "train", "val" or "test" as published; "train" if no split is published.
        group: patient, slide or case; a group must never lie in two splits.
        mpp: µm per pixel of this image, if it differs from the dataset's.
        size: height and width that an annotation file states; None where it does not.
    """

    source: str
    image: Path | Callable[[], Image]
    targets: Targets
    split: str
    group: str
    mpp: float | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Archive:
    """A file that the publisher offers for download.

    Attributes:
        url: its address.
        checksum: "md5:..." or "sha256:..." as published; empty if none is.
        bytes: size; 0 if not published.
        content: published checksum of the one file in a .gz archive, if there is one.
    """

    url: str
    checksum: str = ""
    bytes: int = 0
    content: str = ""
