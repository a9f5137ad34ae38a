"""The HDF5 store: one file per dataset, written once and read in whole batches.

Layout, also readable with plain h5py:

    images            (n, side, side, 3) uint8, one chunk per patch, uncompressed
    targets/<task>    classification (n,) int64, regression (n,) float32,
                      multilabel (n, classes) uint8, segmentation (n, side, side) uint8
    boxes/<task>/     xyxy (m, 4) float32, labels (m,) int64, offsets (n + 1,) int64
    offsets/<name>    (n,) int64, start of each patch of a dense array in the file
                      (compressed: (n + 1,) int64, its start in the array)
    split             (n,) uint8: 0 train, 1 val, 2 test, as published
    group, source     (n,) int32, rows of the string tables `groups` and `sources` (UTF-8)
    xy                (n, 2) int32, corner of the patch in pixels of its source

A patch is one uncompressed chunk and therefore contiguous in the file, so `preadv` reads a batch
straight into the tensor that the loader hands on: 1.5 to 3 times faster than slicing.

A compressed store holds the same, but `images` and masks are (bytes,) uint8: patches encoded by
`datamodules.store.content`, one after the other.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import StoreError
from datamodules.core.hdf5 import OpenFile
from datamodules.core.records import SPLITS, Boxes, Target, TaskKind
from datamodules.store.attributes import REMEDY, damage_told, open_store, tasks_from_json
from datamodules.store.content import decode
from datamodules.store.tables import place_of, seal_differs, table_problem

Rows = Sequence[int] | NDArray[np.int64]


class Store:
    """Reads a finished store. Cheap to open, safe to pickle and to share between processes.

    Args:
        path: the .h5 file.
        checked: refuse a store whose seals or tables are wrong; `verify` looks closer instead.

    Raises:
        StoreError: missing, of another schema version, changed or damaged.

    >>> import tempfile
    >>> from datamodules.core.records import Record, Task, TaskKind
    >>> from datamodules.store.tiling import Patch
    >>> from datamodules.store.writer import write_store
    >>> tasks = (Task("tissue", TaskKind.CLASSIFICATION, ("stroma", "tumour")),)
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "example.h5"
    >>> with write_store(path, tasks, 8, {"name": "example", "synthetic": True}) as writer:
    ...     for number in range(3):
    ...         patch = Patch(np.full((8, 8, 3), number, np.uint8), {"tissue": 1}, 0, 0, mpp=0.5)
    ...         writer.add(Record(f"{number}.png", path, {}, "train", "patient 1"), [patch])
    >>> store = Store(path)
    >>> len(store), store.side, store.mpp, store.group_names
    (3, 8, 0.5, ['patient 1'])
    >>> store.images([2, 0]).shape, store.target("tissue"), store.source(2)
    ((2, 8, 8, 3), array([1, 1, 1]), '2.png')
    """

    def __init__(self, path: Path, checked: bool = True) -> None:
        self.path = path
        self.attributes: dict[str, Any]
        with damage_told(path):
            self._raw: OpenFile | None = OpenFile(path)
        with open_store(self._raw, checked) as (file, self.attributes):
            self._state = self._raw.state()
            problem = self._load(file, checked)
        if problem:
            raise StoreError(f"{path}: {problem}; {REMEDY}")
        # Opened by the process whose id it carries; a forked child opens its own.
        self._file: tuple[int, h5py.File] | None = None

    def _load(self, file: h5py.File, checked: bool) -> str:
        """Read everything but pixels; return what is wrong with it, if that is to be checked."""
        self.side = int(self.attributes["side"])
        self.mpp = float(self.attributes["mpp"])
        self.digest = str(self.attributes["digest"])
        self.synthetic = bool(self.attributes["synthetic"])
        self.compressed = bool(self.attributes["compressed"])
        self.tasks = tasks_from_json(self.attributes["tasks"])
        self.split: NDArray[np.uint8] = file["split"][:]
        self.group: NDArray[np.int32] = file["group"][:]
        self._offsets = {name: data[:] for name, data in file["offsets"].items()}
        self._scalars = {
            name: data[:] for name, data in file["targets"].items() if name not in self._offsets
        }
        self._boxes = {
            name: {key: data[:] for key, data in node.items()}
            for name, node in file["boxes"].items()
        }
        problem = table_problem(file, self.attributes, self.tasks) if checked else ""
        if checked and not problem and seal_differs(file, self.attributes):
            problem = "its tables are not what was written (seal differs)"
        return problem

    def _opened(self) -> OpenFile:
        """The file that was checked; only a process that got a pickled store opens it again."""
        with damage_told(self.path):
            self._raw = self._raw or OpenFile(self.path)
            if self._raw.state() == self._state:
                return self._raw
        raise StoreError(f"{self.path}: replaced or cut short since it was opened; start again")

    @contextmanager
    def tables(self) -> Iterator[h5py.File]:
        """Read the file with h5py; what damage raises within the block is a StoreError."""
        with damage_told(self.path), h5py.File(self._opened(), "r") as file:
            yield file

    def __len__(self) -> int:
        return len(self.split)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_raw": None, "_file": None}

    @cached_property
    def group_names(self) -> list[str]:
        """Patient, slide or case of each number in `group`."""
        with self.tables() as file:
            return [str(name) for name in file["groups"].asstr()[:]]

    def group_name(self, row: int) -> str:
        """Patient, slide or case of a patch."""
        return self.group_names[int(self.group[row])]

    def split_name(self, row: int) -> str:
        """Published split of a patch."""
        return SPLITS[int(self.split[row])]

    @cached_property
    def source_numbers(self) -> NDArray[np.int32]:
        """Number of the source file of each patch, counted in the order of reading."""
        with self.tables() as file:
            return np.asarray(file["source"][:], np.int32)

    def sources(self, rows: Rows) -> list[str]:
        """Source file of each patch, relative to the dataset's folder."""
        numbers, inverse = np.unique(self.source_numbers[np.asarray(rows)], return_inverse=True)
        with self.tables() as file:
            names = file["sources"].asstr()[numbers]
        return [str(names[position]) for position in inverse]

    @property
    def source_names(self) -> list[str]:
        """Name of each source file by its number, also of those that gave no patch."""
        with self.tables() as file:
            return [str(name) for name in file["sources"].asstr()[:]]

    def source(self, row: int) -> str:
        """Source file of one patch."""
        return self.sources([row])[0]

    @cached_property
    def corners(self) -> NDArray[np.int32]:
        """Upper left corner (x, y) of each patch in pixels of its source image, (n, 2)."""
        with self.tables() as file:
            return np.asarray(file["xy"][:], np.int32)

    def corner(self, row: int) -> tuple[int, int]:
        """Upper left corner (x, y) of a patch in pixels of its source image."""
        x, y = self.corners[row].tolist()
        return x, y

    def images(self, rows: Rows) -> NDArray[np.uint8]:
        """Patches, (n, side, side, 3) uint8."""
        return self._read("images", rows, (self.side, self.side, 3))

    def masks(self, task: str, rows: Rows) -> NDArray[np.uint8]:
        """Class indices of a segmentation task, (n, side, side) uint8."""
        return self._read(task, rows, (self.side, self.side))

    def boxes(self, task: str, row: int) -> Boxes:
        """Objects of one patch, in pixels of the patch."""
        node = self._boxes[task]
        part = slice(int(node["offsets"][row]), int(node["offsets"][row + 1]))
        return Boxes(node["xyxy"][part], node["labels"][part])

    def object_counts(self, task: str) -> NDArray[np.int64]:
        """Number of objects in each patch of a detection task."""
        offsets: NDArray[np.int64] = self._boxes[task]["offsets"]
        return np.diff(offsets)

    def object_labels(self, task: str) -> NDArray[np.int64]:
        """Classes of all objects of a detection task, patch after patch."""
        labels: NDArray[np.int64] = self._boxes[task]["labels"]
        return labels

    def object_classes(self, task: str) -> NDArray[np.bool_]:
        """Which classes the objects of each patch have, (n, classes)."""
        classes = next(len(known.classes) for known in self.tasks if known.name == task)
        present = np.zeros((len(self), classes), np.bool_)
        patch = np.repeat(np.arange(len(self)), self.object_counts(task))
        present[patch, self.object_labels(task)] = True
        return present

    def target(self, task: str) -> NDArray[Any]:
        """All targets of a classification, regression or multilabel task."""
        values: NDArray[Any] = self._scalars[task]
        return values

    def targets_of(self, rows: Rows) -> list[dict[str, Target]]:
        """All targets of some patches, by task name."""
        columns: dict[str, Sequence[Target]] = {}
        for task in self.tasks:
            if task.kind is TaskKind.SEGMENTATION:
                columns[task.name] = list(self.masks(task.name, rows))
            elif task.kind is TaskKind.DETECTION:
                columns[task.name] = [self.boxes(task.name, int(row)) for row in rows]
            else:
                columns[task.name] = list(self.target(task.name)[np.asarray(rows)])
        return [{name: of[place] for name, of in columns.items()} for place in range(len(rows))]

    def _read(self, name: str, rows: Rows, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        batch = np.empty((len(rows), *shape), np.uint8)
        if self.compressed:
            self._decode(name, rows, batch)
            return batch
        offsets, descriptor = self._offsets[name], self._opened().fileno()
        with damage_told(self.path):
            for patch, row in zip(batch, rows, strict=True):
                if os.preadv(descriptor, [patch.data], int(offsets[row])) != patch.nbytes:
                    raise StoreError(f"{self.path}: patch {row} of '{name}' is cut short; {REMEDY}")
        return batch

    def _decode(self, name: str, rows: Rows, batch: NDArray[np.uint8]) -> None:
        raw, offsets = self._opened(), self._offsets[name]
        if self._file is None or self._file[0] != os.getpid():
            with damage_told(self.path):
                self._file = (os.getpid(), h5py.File(raw, "r"))
        for patch, row in zip(batch, rows, strict=True):
            with damage_told(self.path):
                data = self._file[1][place_of(name)]
                encoded = data[offsets[row] : offsets[row + 1]]
            if not decode(encoded, patch):
                raise StoreError(f"{self.path}: patch {row} of '{name}' is damaged; {REMEDY}")
