"""What a reader yields: tasks, targets and records.

A reader walks over a dataset in its publisher's layout and yields one `Record` per image.
Pixels and dense targets are *lazy* (a path or a picklable call), so an index of a million
records stays small and can be spread over processes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # RGB, (height, width, 3)
Mask = NDArray[np.uint8]  # class index per pixel, (height, width)

SPLITS = ("train", "val", "test")
DOWNLOADS = ".downloads"  # in a dataset's folder: archives are downloaded and unpacked there


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

    Classes are named in index order. Segmentation counts background as a class; detection names
    the foreground classes only; regression has none. The positive class is the one whose F1 is
    reported if there are exactly two; of detection the only one that counts.
    """

    name: str  # unique within the dataset, e.g. "nuclei"
    kind: TaskKind  # decides target type, head, loss and metrics
    classes: tuple[str, ...] = ()
    ignore_index: int = 255  # segmentation pixels of this value carry no label
    positive: str | None = None
    low: float | None = None  # closed range of a regression target; None where it has no end
    high: float | None = None
    object_size_um: float = 10.0  # detection: typical diameter of an object; selects the stride
    match_distance_um: float = 7.5  # detection: how near the centre of a hit is; 7.5 for mitoses
    weight: float = 1.0  # factor of the loss


@dataclass(frozen=True)
class Boxes:
    """Objects of one image: x1, y1, x2, y2 in pixels, (n, 4), and class indices, (n,)."""

    xyxy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.labels)


Target = int | float | NDArray[np.uint8] | Boxes
"""By task kind: classification int; regression float; multilabel (classes,) uint8 of 0 and 1;
segmentation `Mask`; detection `Boxes`."""

Targets = Mapping[str, Target | Callable[[], Target]]  # of a record, by task name


@dataclass(frozen=True)
class Record:
    """One image of a dataset with all its targets.

    The source is its path relative to the dataset's folder, unique within the dataset
    ("Fold 1/images/fold1/images.npy#17" for items of arrays).
    """

    source: str
    image: Path | Callable[[], Image]  # to decode, or a picklable call that returns the pixels
    targets: Targets  # a picklable call where a target is dense or costly
    split: str  # as published, one of `SPLITS`; "train" if no split is published
    group: str  # patient, slide or case; a group must never lie in two splits
    mpp: float | None = None  # µm per pixel, if it differs from the dataset's
    size: tuple[int, int] | None = None  # height and width that an annotation file states


@dataclass(frozen=True)
class HubFile:
    """A copy of a file in a dataset repository of the Hugging Face hub."""

    repository: str  # owner/name
    revision: str  # a commit, so that the content is fixed
    path: str


@dataclass(frozen=True)
class Archive:
    """A file that the publisher offers, and where to get it."""

    url: str = ""  # the publisher's address; empty if it must be fetched by hand
    checksum: str = ""  # "md5:..." or "sha256:..." as published; empty if none is
    bytes: int = 0  # 0 if not published
    content: str = ""  # published checksum of the one file in a .gz archive, if there is one
    name: str = ""  # its file name, where the address does not end with it
    into: str = ""  # folder for what it holds, below the dataset's; empty for that itself
    mirrors: tuple[str | HubFile, ...] = ()  # further addresses of the same bytes, tried in turn


def on_google_drive(file: str) -> str:
    """The address of a public file on Google Drive, by the id in its link."""
    return f"https://drive.google.com/uc?export=download&id={file}&confirm=t"


def google_drive_zips(rows: Iterable[tuple[str, str, str]]) -> tuple[Archive, ...]:
    """The ZIP archives of some rows of name, id in the link, and SHA-256."""
    return tuple(
        Archive(on_google_drive(file), f"sha256:{sha256}", name=f"{name}.zip")
        for name, file, sha256 in rows
    )
