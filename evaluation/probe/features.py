"""Frozen features: every image of an unseen dataset through an encoder once, kept in HDF5.

A cache file is named by a digest of everything that decides its content: the encoder's weights,
the store's content, the task, the input size and the precision. It is written beside its place
and renamed when complete, so a file that exists is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.atomic import atomic_path
from datamodules.core.errors import ProbeError
from datamodules.core.records import Task, TaskKind
from datamodules.stream.batch import MultiTaskBatch

log = logging.getLogger(__name__)

SCHEMA = 1
"""Version of the cache file's layout; part of its name's digest."""


class ImageEncoder(Protocol):
    """What a frozen encoder must offer; `models.inference.frozen_encoder.FrozenEncoder` does."""

    @property
    def name(self) -> str:
        """How results call it."""

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean colour that it subtracts."""

    @property
    def std(self) -> tuple[float, ...]:
        """Spread of colour that it divides by."""

    def embed(self, images: Tensor, precision: str = "fp32") -> Tensor:
        """Features float32 (n, d) of uint8 images (n, height, width, 3)."""


class ProbeStore(Protocol):
    """What is needed of a prepared store; `datamodules.store.reader.Store` has it."""

    digest: str
    tasks: tuple[Task, ...]
    split: NDArray[np.uint8]
    group: NDArray[np.int32]
    synthetic: bool

    def target(self, task: str) -> NDArray[Any]:
        """All targets of a classification or regression task."""

    def images(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Patches, uint8 (n, side, side, 3)."""


class ProbeData(Protocol):
    """What is needed of an unseen dataset; every `PathologyDataModule` has it."""

    name: str
    config: DatasetConfig
    data: DataConfig

    @property
    def store(self) -> ProbeStore:
        """The prepared store."""

    def evaluation_loader(self, input_size: int, batch_size: int) -> Iterable[MultiTaskBatch]:
        """All images of the store in order, one part per batch."""


@dataclass(frozen=True)
class Features:
    """One dataset seen by one encoder.

    Row i belongs to image i of the store, so `store.source(i)` names the file behind it.

    Attributes:
        dataset: name in this run.
        encoder: name of the encoder.
        kind: classification or regression.
        classes: class names in index order; empty for regression.
        positive: index of the class whose F1 counts, for two classes; else None.
        features: float32 (n, d); a read-only map of the cache file where there is one.
        targets: int64 or float32 (n,).
        groups: int32 (n,), patient, slide or case.
        split: uint8 (n,), 0 train, 1 val, 2 test as published.
        folds: grouped folds of the protocol; 0 is the official test split.
        key: digest of what the features were made of.
    """

    dataset: str
    encoder: str
    kind: TaskKind
    classes: tuple[str, ...]
    positive: int | None
    features: NDArray[np.float32]
    targets: NDArray[Any]
    groups: NDArray[np.int32]
    split: NDArray[np.uint8]
    folds: int
    key: str


def probe_task(dataset: str, tasks: Iterable[Task]) -> Task:
    """A dataset's first classification or regression task; a ProbeError where it has none."""
    known = list(tasks)
    for task in known:
        if task.kind in (TaskKind.CLASSIFICATION, TaskKind.REGRESSION):
            return task
    listed = ", ".join(f"{task.name} ({task.kind})" for task in known) or "none"
    raise ProbeError(
        f"{dataset}: probes need a classification or regression task, it has {listed}; "
        "take it out of data.unseen"
    )


def extract(
    encoder: ImageEncoder,
    data: ProbeData,
    task: Task,
    cache: Path,
    batch_size: int = 64,
    precision: str = "fp32",
    deadline: float | None = None,
) -> Features:
    """Features of all images of a dataset, from the cache where they are there.

    Args:
        encoder: frozen encoder.
        data: prepared dataset.
        task: classification or regression task of it.
        cache: folder of the cache files.
        batch_size: images per forward pass; does not change what is asked for.
        precision: "fp32" or "bf16"; part of the cache key, because features depend on it.
        deadline: on the clock of `time.monotonic()`; None waits for the last image.

    Raises:
        ProbeError: the loader hands out another number of images than the store holds, the
            encoder gives values that are not finite, or the deadline passes.
    """
    size = data.config.input_size or data.data.image_size
    decisive: list[Any] = [encoder.digest, encoder.mean, encoder.std, data.store.digest]
    decisive += [task.name, size, precision, SCHEMA]
    key = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
    path = cache / f"{_file_name(data.name)}-{_file_name(encoder.name)}-{key[:16]}.h5"
    if not path.is_file():
        log.info("features of %s with %s", data.name, encoder.name)
        rows = len(data.store.split)
        batches = data.evaluation_loader(size, batch_size)
        features = _embed_all(encoder, batches, rows, precision, data.name, deadline)
        _write(path, features)
    return Features(
        dataset=data.name,
        encoder=encoder.name,
        kind=task.kind,
        classes=task.classes,
        positive=_positive(task),
        features=_map(path),
        targets=np.asarray(data.store.target(task.name)),
        groups=np.asarray(data.store.group),
        split=np.asarray(data.store.split),
        folds=data.config.folds,
        key=key,
    )


def _positive(task: Task) -> int | None:
    """Index of the positive class; the second of two where the dataset names none."""
    if task.kind is not TaskKind.CLASSIFICATION or len(task.classes) != 2:
        return None
    return task.classes.index(task.positive) if task.positive else 1


def _embed_all(
    encoder: ImageEncoder,
    batches: Iterable[MultiTaskBatch],
    rows: int,
    precision: str,
    dataset: str,
    deadline: float | None,
) -> NDArray[np.float32]:
    found: NDArray[np.float32] | None = None
    seen = np.zeros(rows, bool)
    for batch in batches:
        if deadline is not None and time.monotonic() > deadline:
            done = int(seen.sum())
            raise ProbeError(f"{dataset}: time was over when {done} of {rows} images were embedded")
        part = batch.parts[0]
        values = encoder.embed(batch.images[: part.valid], precision).float().cpu().numpy()
        if not np.isfinite(values).all():
            raise ProbeError(
                f"{dataset}: {encoder.name} gives features that are not finite "
                f"(precision {precision}); take probe.precision=fp32 or another encoder"
            )
        if found is None:
            found = np.empty((rows, values.shape[1]), np.float32)
        index = part.index[: part.valid].numpy()
        found[index] = values
        seen[index] = True
    if found is None or not seen.all():
        raise ProbeError(
            f"{dataset}: the loader gave {int(seen.sum())} of {rows} images; prepare it again"
        )
    return found


def _write(path: Path, features: NDArray[np.float32]) -> None:
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.create_dataset("features", data=features)  # contiguous, so that it can be mapped
        file.attrs["schema"] = SCHEMA


def _map(path: Path) -> NDArray[np.float32]:
    """The features as a read-only map: processes of a sweep share its pages."""
    try:
        with h5py.File(path, "r") as file:
            data = file["features"]
            shape, offset = data.shape, data.id.get_offset()
    except (OSError, KeyError) as error:
        raise ProbeError(f"{path}: not a feature file ({error}); delete it") from error
    return np.memmap(path, np.float32, "r", offset, shape)


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("_")[-60:]
