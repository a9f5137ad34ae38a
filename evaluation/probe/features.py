"""Frozen features: every image of an unseen dataset through an encoder once, cached in HDF5.

A cache file is named by a digest of everything that determines its content.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.core.atomic import atomic_path
from datamodules.core.disk_space import require_space
from datamodules.core.errors import ProbeError
from datamodules.core.hdf5 import NewFile
from datamodules.core.progress import Work
from datamodules.core.records import Task, TaskKind
from evaluation.config import Role
from evaluation.probe.dense import CELL, SAMPLE, DenseTruth, cell_features, dense_truth
from evaluation.probe.folds import groups_of_role
from evaluation.run_files import file_name

if TYPE_CHECKING:  # processes of the sweep import this file and need none of them
    from datamodules.base import PathologyDataModule
    from datamodules.reader import DatasetReader
    from datamodules.store.reader import Store
    from datamodules.stream.batch import MultiTaskBatch
    from models.inference.frozen_encoder import FrozenEncoder

log = logging.getLogger(__name__)

SCHEMA = 2  # of the cache file's layout; part of the digest in its name


@dataclass(frozen=True)
class Features:
    """Features of one dataset under one encoder."""

    dataset: str
    encoder: str
    kind: TaskKind
    classes: tuple[str, ...]  # class names in index order; empty for regression
    positive: int | None  # index of the class that F1 counts, for two classes; else None
    features: NDArray[np.float32]  # (n, d) float32, a read-only map of the cache file
    targets: NDArray[Any]  # (n,) int64 or float32
    groups: NDArray[np.int32]  # patient, slide or case, (n,) int32
    split: NDArray[np.uint8]  # 0 train, 1 val, 2 test as published, (n,) uint8
    folds: int  # grouped folds of the protocol; 0 is the official test split
    key: str  # digest of what the features were made of, and the role of their groups
    rows: NDArray[np.int64]  # row of the store behind each of these rows, ascending, (n,) int64
    dense: DenseTruth | None = None
    """Of a dense probe: the truth of these rows. Features are then those of all cells of all images
    of the store, (images, cells, d), and targets what stratifies the images."""


def probe_task(dataset: str, tasks: Iterable[Task]) -> Task:
    """Return a dataset's first classification or regression task.

    Raises:
        ProbeError: it has none.
    """
    tasks = list(tasks)
    for task in tasks:
        if task.kind in (TaskKind.CLASSIFICATION, TaskKind.REGRESSION):
            return task
    listed = ", ".join(f"{task.name} ({task.kind})" for task in tasks) or "none"
    raise ProbeError(
        f"{dataset}: probes need a classification or regression task, it has {listed}; "
        "remove it from data.unseen"
    )


def probe_target(data: DatasetReader | PathologyDataModule) -> tuple[Task, NDArray[Any]]:
    """Return what a dataset's probe predicts: its task, and the target of every row, (n,).

    Raises:
        ProbeError: it has no such task, or no such class.
    """
    if data.config.dense:
        truth = dense_truth(data, data.config.input_size or data.data.image_size)
        return Task(f"amount of {truth.task.name}", TaskKind.REGRESSION), truth.stratum
    if not data.config.area_share:
        task = probe_task(data.name, data.store.tasks)
        return task, np.asarray(data.store.target(task.name))
    chosen = data.config.area_share
    for task in data.store.tasks:
        if task.kind is TaskKind.SEGMENTATION and set(chosen) <= set(task.classes):
            numbers = [task.classes.index(name) for name in chosen]
            name = f"area of {', '.join(chosen)}"
            shares = _area_shares(data.store, task, numbers)
            return Task(name, TaskKind.REGRESSION, low=0.0, high=1.0), shares
    known = "; ".join(f"{task.name}: {', '.join(task.classes)}" for task in data.store.tasks)
    raise ProbeError(
        f"data.unseen.{data.name}.area_share={chosen}: no segmentation task has these classes; "
        f"classes of its tasks: {known}"
    )


def _area_shares(store: Store, task: Task, numbers: Sequence[int]) -> NDArray[np.float32]:
    """Return the share of the labelled pixels of every patch that belong to some classes, (n,).

    Raises:
        ProbeError: a patch has no labelled pixel.
    """
    shares = np.zeros(len(store), np.float32)
    for row in range(len(store)):
        mask = store.masks(task.name, [row])
        labelled = mask[mask != task.ignore_index]
        if not len(labelled):
            raise ProbeError(
                f"{store.path}: no pixel of {task.name} is labelled in a patch of "
                f"{store.source(row)}, so its area has no share; leave area_share out"
            )
        shares[row] = np.isin(labelled, numbers).mean()
    return shares


def extract(
    encoder: FrozenEncoder,
    data: PathologyDataModule,
    cache: Path,
    batch_size: int = 64,
    precision: str = "fp32",
    deadline: float | None = None,
    role: Role = "all",
) -> Features:
    """Return the features of a prepared dataset's images, from the cache if they are in it.

    Args:
        encoder: frozen encoder.
        data: with a classification or regression task.
        cache: folder of the cache files.
        batch_size: images per forward pass.
        precision: "fp32" or "bf16".
        deadline: on the clock of `time.monotonic()`; None for no limit.
        role: whose images are returned (see `groups_of_role`); the cache holds all.

    Raises:
        ProbeError: the dataset has no such task, no group has this role, the loader yields
            another number of images than the store holds, features are not finite, or the
            deadline passes.
    """
    size = data.config.input_size or data.data.image_size
    dense = dense_truth(data, size) if data.config.dense else None
    task, targets = (dense.task, dense.stratum) if dense else probe_target(data)
    decisive = [encoder.identity, data.store.digest, task.name, size, precision, SCHEMA]
    if dense is not None:
        decisive += ["interpolated cells", CELL, SAMPLE, dense.distance]
    key = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
    path = cache / f"{file_name(data.name)}-{file_name(encoder.name)}-{key[:16]}.h5"
    features = _read(path)
    if features is None:
        name = f"features of {data.name} with {encoder.name}"
        log.info("%s", name)
        batches = data.evaluation_loader(size, batch_size)
        with Work(name, "images", len(data.store)) as work:
            seen = work.over(batches, lambda batch: batch.parts[0].valid)
            found = _embed_all(encoder, seen, data, precision, deadline, cache, dense)
        _write(path, found)
        features = _read(path)
        if features is None:
            raise ProbeError(f"{path}: the disk does not return what was written to it")
    rows = rows_of_role(data, role)
    positive = None
    if task.kind is TaskKind.CLASSIFICATION and len(task.classes) == 2:
        positive = task.classes.index(task.positive) if task.positive else 1
    return Features(
        dataset=data.name,
        encoder=encoder.name,
        kind=task.kind if dense is None else TaskKind.REGRESSION,
        classes=task.classes if dense is None else dense.classes,
        positive=positive if dense is None else dense.positive,
        features=features if role == "all" or dense is not None else features[rows],
        targets=targets[rows],
        groups=np.asarray(data.store.group)[rows],
        split=np.asarray(data.store.split)[rows],
        folds=data.config.folds,
        key=key if role == "all" else f"{key}-{role}",
        rows=rows,
        dense=dense and dense.among(rows),
    )


def rows_of_role(data: DatasetReader | PathologyDataModule, role: Role) -> NDArray[np.int64]:
    """Return the rows of the store whose groups have a role.

    Raises:
        ProbeError: no group has it.
    """
    rows = np.flatnonzero(groups_of_role(data.store.group_names, role)[data.store.group])
    if not len(rows):
        raise ProbeError(
            f"{data.name}: none of its {len(data.store.group_names)} groups is in the {role} half; "
            "set probe.role=all, or leave the dataset out"
        )
    return rows


def _embed_all(
    encoder: FrozenEncoder,
    batches: Iterable[MultiTaskBatch],
    data: PathologyDataModule,
    precision: str,
    deadline: float | None,
    cache: Path,
    dense: DenseTruth | None,
) -> NDArray[np.float32]:
    features: NDArray[np.float32] | None = None
    seen = np.zeros(len(data.store.split), bool)
    for batch in batches:
        if deadline is not None and time.monotonic() > deadline:
            raise ProbeError(
                f"{data.name}: time ran out after {int(seen.sum())} of {len(seen)} images"
            )
        part = batch.parts[0]
        index, images = part.index[: part.valid].numpy(), batch.images[: part.valid]
        if dense is None:
            values = encoder.embed(images, precision).numpy()
        else:
            values = cell_features(encoder.embed_dense(images, precision), dense.side)
        if not np.isfinite(values).all():
            raise ProbeError(
                f"{data.name}: {encoder.name} gives features that are not finite "
                f"(precision {precision}); use probe.precision=fp32 or another encoder"
            )
        if features is None:
            shape = (len(seen), *values.shape[1:])
            require_space(cache, 4 * math.prod(shape), "make room, or set data.stores")
            features = np.empty(shape, np.float32)
        features[index] = values
        seen[index] = True
    if features is None or not seen.all():
        raise ProbeError(
            f"{data.name}: the loader gave {int(seen.sum())} of {len(seen)} images; "
            "prepare it again"
        )
    return features


def _write(path: Path, features: NDArray[np.float32]) -> None:
    with atomic_path(path) as partial, NewFile(partial) as file:
        file.create_dataset("features", data=features)  # contiguous, so that it can be mapped
        file.attrs["schema"] = SCHEMA
        file.attrs["crc32"] = zlib.crc32(features.tobytes())


def _read(path: Path) -> NDArray[np.float32] | None:
    """Map features read-only, shared by the processes of a sweep; None if missing or damaged."""
    if not path.is_file():
        return None
    try:
        with h5py.File(path, "r") as file:
            data, expected = file["features"], int(file.attrs["crc32"])
            shape, offset = data.shape, data.id.get_offset()
        features = np.memmap(path, np.float32, "r", offset, shape)
        if zlib.crc32(features.tobytes()) == expected:
            return features
        problem = "its content is not what was written"
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        problem = " ".join(str(error).split())
    log.warning("%s: damaged feature cache (%s), computing it again", path, problem)
    return None
