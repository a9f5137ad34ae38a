"""Writing a store: beside its final place, patch by patch, renamed when complete."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.core.atomic import atomic_path
from datamodules.core.errors import LayoutError, StoreError
from datamodules.core.hdf5 import NewFile
from datamodules.core.records import SPLITS, Boxes, Record, Task, TaskKind
from datamodules.store.attributes import SCHEMA, fixed_texts, set_attributes, tasks_to_json
from datamodules.store.content import SCALAR_TYPE, ContentDigest, encode
from datamodules.store.reader import Store
from datamodules.store.tables import write_seals
from datamodules.store.tiling import Patch

_CHUNK_BYTES = 2**20  # of the file, for encoded patches
_ROWS = {"split": "B", "group": "i", "source": "i", "xy": "i", "mpp": "d"}  # type codes of `array`
_BLOCK = 64  # patches written at a time: large enough for HDF5, small in memory


@contextmanager
def write_store(
    path: Path,
    tasks: Sequence[Task],
    side: int,
    attributes: Mapping[str, Any],
    compressed: bool = False,
) -> Iterator[StoreWriter]:
    """Write a store; an error or interrupt leaves no file and keeps an older store.

    Args:
        path: the final .h5 file.
        tasks: the dataset's tasks.
        side: side of a patch in pixels.
        attributes: further attributes (name, card, settings digest, fingerprint).
        compressed: keep images and masks encoded, see `datamodules.store.content`.

    Raises:
        LayoutError: nothing was added.
        StoreError: the disk does not return what was written.
    """
    # A fixed temporary name, so that the next call finds what a killed process left.
    with atomic_path(path, unique=False) as partial:
        with NewFile(partial) as file:
            writer = StoreWriter(file, tasks, side, compressed)
            yield writer
            if not len(writer):
                raise LayoutError(f"{path.stem}: the dataset holds no labelled image")
            writer.finish(attributes)
        writer.check(Store(partial))


class StoreWriter:
    """Appends patches to an open file; made by `write_store`."""

    def __init__(self, file: NewFile, tasks: Sequence[Task], side: int, compressed: bool) -> None:
        self.tasks = tuple(tasks)
        self.side = side
        self.compressed = compressed
        self._file = file
        self._ends: dict[str, list[int]] = {}
        self._digest = ContentDigest(self.tasks)
        self._sums: dict[str, list[int]] = {}  # checksums of the pixels of every block
        self._pending = 0  # rows of the blocks that are not yet in the file
        # Typed arrays and bytes: a million patches as Python objects would take half a gigabyte.
        self._rows: dict[str, array[Any]] = {name: array(code) for name, code in _ROWS.items()}
        self._scalars = {task.name: bytearray() for task in tasks if task.kind in SCALAR_TYPE}
        self._boxes: dict[str, list[Boxes]] = {
            task.name: [] for task in tasks if task.kind is TaskKind.DETECTION
        }
        self._tables: dict[str, dict[str, int]] = {"group": {}, "source": {}}
        self._dense = {"images": self._create("images", (side, side, 3))}
        file.create_group("targets")
        for task in tasks:
            if task.kind is TaskKind.SEGMENTATION:
                self._dense[task.name] = self._create(f"targets/{task.name}", (side, side))
        shapes = {
            name: (side, side, 3) if name == "images" else (side, side) for name in self._dense
        }
        self._blocks = {n: np.empty((_BLOCK, *shape), np.uint8) for n, shape in shapes.items()}

    def __len__(self) -> int:
        return len(self._rows["split"])

    def add(self, record: Record, patches: Sequence[Patch]) -> None:
        """Append all patches of one record; nothing of them is kept but copies.

        Raises:
            LayoutError: an earlier record has the same source.
        """
        if record.source in self._tables["source"]:
            raise LayoutError(f"{record.source}: occurs twice in the dataset")
        for patch in patches:
            self._rows["split"].append(SPLITS.index(record.split))
            self._rows["xy"].extend((patch.x, patch.y))
            self._rows["mpp"].append(patch.mpp)
            self._digest.add(record.split, record.group, record.source, patch.image, patch.targets)
            for task in self.tasks:
                target = patch.targets[task.name]
                if isinstance(target, Boxes):
                    self._boxes[task.name].append(Boxes(target.xyxy.copy(), target.labels.copy()))
                elif task.kind in SCALAR_TYPE:
                    self._scalars[task.name] += np.asarray(target, SCALAR_TYPE[task.kind]).tobytes()
            for name, block in self._blocks.items():
                block[self._pending] = patch.image if name == "images" else patch.targets[name]
            self._pending += 1
            if self._pending == _BLOCK:
                self._flush()
        for name, text in (("group", record.group), ("source", record.source)):
            number = self._tables[name].setdefault(text, len(self._tables[name]))
            self._rows[name].extend([number] * len(patches))

    def _create(self, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
        if self.compressed:
            return self._file.create_dataset(
                name, (0,), np.uint8, maxshape=(None,), chunks=(_CHUNK_BYTES,)
            )
        return self._file.create_dataset(
            name, (0, *shape), np.uint8, maxshape=(None, *shape), chunks=(1, *shape)
        )

    def _flush(self) -> None:
        for name, data in self._dense.items():
            rows = self._blocks[name][: self._pending]
            if self.compressed:
                self._append_encoded(name, data, rows)
            elif len(rows):
                start = data.shape[0]
                data.resize(start + len(rows), axis=0)
                data[start:] = rows
            self._sums.setdefault(name, []).append(zlib.crc32(rows.data))
        self._pending = 0
        self._file.check()

    def _append_encoded(self, name: str, data: h5py.Dataset, rows: NDArray[np.uint8]) -> None:
        with ThreadPoolExecutor() as threads:  # encoding releases the interpreter's lock
            encoded = list(threads.map(encode, rows))
        start, ends = data.shape[0], self._ends.setdefault(name, [0])
        ends.extend((start + np.cumsum([len(one) for one in encoded])).tolist())
        data.resize(ends[-1], axis=0)
        data[start:] = np.concatenate(encoded) if encoded else 0

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write what is pending, the tables and all attributes."""
        self._flush()
        file = self._file
        for name in ("split", "group", "source"):
            file[name] = np.asarray(self._rows[name])
        file["xy"] = np.asarray(self._rows["xy"]).reshape(len(self), 2)
        for table, names in self._tables.items():
            file[f"{table}s"] = fixed_texts(list(names))
        self._write_targets()
        file.create_group("offsets")
        for name, data in self._dense.items():
            file[f"offsets/{name}"] = self._ends[name] if self.compressed else chunk_offsets(data)
        own = {"tasks": tasks_to_json(self.tasks), "digest": self._digest.hexdigest()}
        set_attributes(file, {**attributes, **own})
        file.attrs["side"] = self.side
        file.attrs["mpp"] = float(np.median(self._rows["mpp"]))
        file.attrs["count"] = len(self)
        file.attrs["schema"] = SCHEMA
        file.attrs["compressed"] = self.compressed
        file.attrs["data_end"] = max(
            int(chunk_offsets(data)[-1]) + int(np.prod(data.chunks))
            for data in self._dense.values()
        )
        write_seals(file)

    def check(self, store: Store) -> None:
        """Compare all pixels of the finished store with those that were added."""

        def differs(block: tuple[str, int, int]) -> bool:
            name, number, expected = block
            rows = range(number * _BLOCK, min((number + 1) * _BLOCK, len(store)))
            pixels = store.images(rows) if name == "images" else store.masks(name, rows)
            return zlib.crc32(pixels.data) != expected

        blocks = [(name, i, one) for name, sums in self._sums.items() for i, one in enumerate(sums)]
        with ThreadPoolExecutor(2) as threads:
            if any(threads.map(differs, blocks)):
                raise StoreError(f"{store.path}: the disk does not return what was written to it")

    def _write_targets(self) -> None:
        for task in self.tasks:
            if task.kind in SCALAR_TYPE:
                values = np.frombuffer(self._scalars[task.name], SCALAR_TYPE[task.kind])
                classes = (len(task.classes),) if task.kind is TaskKind.MULTILABEL else ()
                self._file[f"targets/{task.name}"] = values.reshape(len(self), *classes)
        node = self._file.create_group("boxes")
        for name, boxes in self._boxes.items():
            counts = [len(b) for b in boxes]
            node[f"{name}/xyxy"] = np.concatenate([b.xyxy for b in boxes]).astype(np.float32)
            node[f"{name}/labels"] = np.concatenate([b.labels for b in boxes]).astype(np.int64)
            node[f"{name}/offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def chunk_offsets(data: h5py.Dataset) -> NDArray[np.int64]:
    """Byte position in the file of each chunk along the first axis, for arrays without filters."""
    rows = data.chunks[0]
    offsets = np.zeros(-(-data.shape[0] // rows), np.int64)

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[0] // rows] = chunk.byte_offset

    data.id.chunk_iter(note)
    return offsets
