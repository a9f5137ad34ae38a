"""Writing a store: beside its final place, patch by patch, renamed when complete."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from datamodules.core.atomic import partial_path, publish
from datamodules.core.errors import LayoutError
from datamodules.core.records import SPLITS, Boxes, Record, Target, Task, TaskKind
from datamodules.store.content import SCALAR_TYPE, ContentDigest, encode
from datamodules.store.reader import SCHEMA, tasks_to_json
from datamodules.store.tiling import Patch

DENSE = (TaskKind.SEGMENTATION,)
_PIECE = 2**20  # bytes of encoded patches that lie in one piece of the file
_ROWS = {"split": "B", "group": "i", "source": "i", "xy": "i", "mpp": "d"}  # as in `array`
_BLOCK = 64  # patches written at a time: large enough for HDF5, small in memory


class StoreWriter:
    """Context manager that writes a store; whatever fails leaves no file behind.

    Args:
        path: the final .h5 file; an older one is replaced only on success.
        tasks: the dataset's tasks.
        side: side of a patch in pixels.
        attributes: further attributes (name, card, settings digest, fingerprint).
        compressed: keep images and masks encoded, see `datamodules.store.content`.
    """

    def __init__(
        self,
        path: Path,
        tasks: Sequence[Task],
        side: int,
        attributes: Mapping[str, Any],
        compressed: bool = False,
    ) -> None:
        self.path = path
        self.partial = partial_path(path)
        self.tasks = tuple(tasks)
        self.side = side
        self.attributes = dict(attributes)
        self.compressed = compressed
        self._ends: dict[str, list[int]] = {}
        self._digest = ContentDigest(self.tasks)
        self._pending: list[Patch] = []
        # Typed arrays and bytes: a million patches as Python objects would take half a gigabyte.
        self._rows: dict[str, array[Any]] = {name: array(code) for name, code in _ROWS.items()}
        self._scalars = {task.name: bytearray() for task in tasks if task.kind in SCALAR_TYPE}
        self._boxes: dict[str, list[Boxes]] = {
            task.name: [] for task in tasks if task.kind is TaskKind.DETECTION
        }
        self._tables: dict[str, dict[str, int]] = {"group": {}, "source": {}}

    def __enter__(self) -> StoreWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.partial.unlink(missing_ok=True)
        try:
            self._begin()
        except BaseException:  # an interrupt, too: nobody calls __exit__ then
            self.partial.unlink(missing_ok=True)
            raise
        return self

    def _begin(self) -> None:
        self._file = h5py.File(self.partial, "w", libver="latest")
        shape = (self.side, self.side)
        self._dense = {"images": self._create("images", (*shape, 3))}
        self._file.create_group("targets")
        for task in self.tasks:
            if task.kind in DENSE:
                self._dense[task.name] = self._create(f"targets/{task.name}", shape)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._file:
                self._file.close()
            self.partial.unlink(missing_ok=True)

    def add(self, record: Record, patches: Sequence[Patch]) -> None:
        """Append all patches of one record.

        Raises:
            LayoutError: two records call themselves by the same source.
        """
        if record.source in self._tables["source"]:
            raise LayoutError(f"{record.source}: occurs twice in the dataset")
        source = self._number("source", record.source)
        group = self._number("group", record.group)
        for patch in patches:
            self._rows["split"].append(SPLITS.index(record.split))
            self._rows["group"].append(group)
            self._rows["source"].append(source)
            self._rows["xy"].extend((patch.x, patch.y))
            self._rows["mpp"].append(patch.mpp)
            self._digest.add(record.split, record.group, record.source, patch.image, patch.targets)
            for task in self.tasks:
                self._add_target(task, patch.targets[task.name])
            self._pending.append(patch)
            if len(self._pending) == _BLOCK:
                self._flush()

    def _add_target(self, task: Task, target: Target) -> None:
        if isinstance(target, Boxes):
            self._boxes[task.name].append(target)
        elif task.kind in SCALAR_TYPE:
            self._scalars[task.name] += np.asarray(target, SCALAR_TYPE[task.kind]).tobytes()

    def _number(self, table: str, name: str) -> int:
        return self._tables[table].setdefault(name, len(self._tables[table]))

    def _create(self, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
        if self.compressed:
            return self._file.create_dataset(
                name, (0,), np.uint8, maxshape=(None,), chunks=(_PIECE,)
            )
        return self._file.create_dataset(
            name, (0, *shape), np.uint8, maxshape=(None, *shape), chunks=(1, *shape)
        )

    def _flush(self) -> None:
        for name, data in self._dense.items():
            rows = [p.image if name == "images" else p.targets[name] for p in self._pending]
            if self.compressed:
                self._append_encoded(name, data, rows)
            elif rows:
                start = data.shape[0]
                data.resize(start + len(rows), axis=0)
                data[start:] = np.stack([np.asarray(row) for row in rows])
        self._pending.clear()

    def _append_encoded(self, name: str, data: h5py.Dataset, rows: Sequence[Any]) -> None:
        with ThreadPoolExecutor() as threads:  # encoding leaves the interpreter's lock
            encoded = list(threads.map(encode, rows))
        start, ends = data.shape[0], self._ends.setdefault(name, [0])
        ends.extend((start + np.cumsum([len(one) for one in encoded])).tolist())
        data.resize(ends[-1], axis=0)
        data[start:] = np.concatenate(encoded) if encoded else 0

    def _finish(self) -> None:
        self._flush()
        count = len(self._rows["split"])
        if not count:
            raise LayoutError(f"{self.path.stem}: the dataset holds no labelled image")
        file = self._file
        for name in ("split", "group", "source"):
            file[name] = np.asarray(self._rows[name])
        file["xy"] = np.asarray(self._rows["xy"]).reshape(count, 2)
        for table, names in self._tables.items():
            file.create_dataset(f"{table}s", data=list(names), dtype=h5py.string_dtype())
        for task in self.tasks:
            if task.kind in SCALAR_TYPE:
                values = np.frombuffer(self._scalars[task.name], SCALAR_TYPE[task.kind])
                wide = (len(task.classes),) if task.kind is TaskKind.MULTILABEL else ()
                file[f"targets/{task.name}"] = values.reshape(count, *wide)
        self._finish_boxes()
        file.create_group("offsets")
        for name, data in self._dense.items():
            file[f"offsets/{name}"] = self._ends[name] if self.compressed else chunk_offsets(data)
        file.attrs.update(self.attributes)
        file.attrs["tasks"] = tasks_to_json(self.tasks)
        file.attrs["side"] = self.side
        file.attrs["mpp"] = float(np.median(self._rows["mpp"]))
        file.attrs["count"] = count
        file.attrs["digest"] = self._digest.hexdigest()
        file.attrs["schema"] = SCHEMA
        file.attrs["compressed"] = self.compressed
        file.attrs["data_end"] = max(
            int(chunk_offsets(data)[-1]) + int(np.prod(data.chunks))
            for data in self._dense.values()
        )
        file.close()
        publish(self.partial, self.path)

    def _finish_boxes(self) -> None:
        node = self._file.create_group("boxes")
        for task, boxes in self._boxes.items():
            counts = [len(b) for b in boxes]
            node[f"{task}/xyxy"] = np.concatenate([b.xyxy for b in boxes]).astype(np.float32)
            node[f"{task}/labels"] = np.concatenate([b.labels for b in boxes]).astype(np.int64)
            node[f"{task}/offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def chunk_offsets(data: h5py.Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Byte position in the file of each chunk along the first axis, of arrays without filters."""
    rows = data.chunks[0]
    offsets = np.zeros(-(-data.shape[0] // rows), np.int64)

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[0] // rows] = chunk.byte_offset

    data.id.chunk_iter(note)
    return offsets
