"""The tables of a store: their seal, and whether they fit together.

Tables are all arrays that are not chunked; images and masks, which are, stand under `digest`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import SPLITS, Task, TaskKind
from datamodules.store.attributes import (
    SEAL,
    TABLES_SEAL,
    attributes_in,
    seal_of_attributes,
    set_attributes,
)
from datamodules.store.content import SCALAR_TYPE

_BLOCK = 2**18  # rows of a table hashed at a time


def write_seals(file: h5py.File) -> None:
    """Seal a store that is complete: nothing may be written afterwards."""
    set_attributes(file, {TABLES_SEAL: seal_of_tables(file)})
    set_attributes(file, {SEAL: seal_of_attributes(attributes_in(file))})


def seal_of_tables(file: h5py.File) -> str:
    """SHA-256 over names, types, shapes and values of all tables."""
    tables: dict[str, h5py.Dataset] = {}

    def note(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.chunks is None:
            tables[name] = node

    file.visititems(note)
    digest = hashlib.sha256()
    for name, table in sorted(tables.items()):
        digest.update(f"{name}|{table.dtype.str}|{table.shape}\n".encode())
        for start in range(0, len(table), _BLOCK):
            block = table[start : start + _BLOCK]
            text = block.dtype.hasobject
            digest.update(b"\0".join(block) if text else np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()


def seal_differs(file: h5py.File, attributes: Mapping[str, Any]) -> bool:
    """Whether the tables are not what was written, as far as a seal tells."""
    return attributes.get(TABLES_SEAL, "") not in ("", seal_of_tables(file))


def table_problem(file: h5py.File, attributes: Mapping[str, Any], tasks: Sequence[Task]) -> str:
    """How the tables contradict each other, so that no row can be trusted; empty if not."""
    fits = {**_rows_fit(file, int(attributes["count"])), **_offsets_fit(file, attributes)}
    for task in tasks:
        fits[task.name] = _targets_fit(file, int(attributes["count"]), task)
    wrong = [name for name, fit in fits.items() if not fit]
    return f"its tables contradict each other ({', '.join(wrong)})" if wrong else ""


def place_of(name: str) -> str:
    """Where a dense array lies in the file: `images`, or the masks of a task."""
    return "images" if name == "images" else f"targets/{name}"


def _rows_fit(file: h5py.File, count: int) -> dict[str, bool]:
    limits = {"split": len(SPLITS), "group": len(file["groups"]), "source": len(file["sources"])}
    fits = {name: _numbers(file[name][:], count, limit) for name, limit in limits.items()}
    return {**fits, "xy": file["xy"].shape == (count, 2)}


def _offsets_fit(file: h5py.File, attributes: Mapping[str, Any]) -> dict[str, bool]:
    count, side = int(attributes["count"]), int(attributes["side"])
    fits = {"images": "images" in file["offsets"]}
    for name, node in file["offsets"].items():
        if attributes["compressed"]:
            fits[f"offsets of {name}"] = _runs(node[:], count, len(file[place_of(name)]))
        else:
            last = int(attributes["data_end"]) - side**2 * (3 if name == "images" else 1)
            fits[f"offsets of {name}"] = _numbers(node[:], count, last + 1)
    return fits


def _targets_fit(file: h5py.File, count: int, task: Task) -> bool:
    if task.kind is TaskKind.SEGMENTATION:
        return task.name in file["offsets"]
    if task.kind is TaskKind.DETECTION:
        node = file[f"boxes/{task.name}"]
        objects = len(node["labels"])
        return _runs(node["offsets"][:], count, objects) and node["xyxy"].shape == (objects, 4)
    classes = (len(task.classes),) if task.kind is TaskKind.MULTILABEL else ()
    stored = file[f"targets/{task.name}"]
    return bool(stored.shape == (count, *classes) and stored.dtype == SCALAR_TYPE[task.kind])


def _numbers(values: NDArray[Any], count: int, limit: int) -> bool:
    whole = values.shape == (count,) and np.issubdtype(values.dtype, np.integer)
    return bool(whole and (values >= 0).all() and (values < limit).all())


def _runs(offsets: NDArray[Any], count: int, end: int) -> bool:
    """Whether offsets begin at 0, never run backwards and end where their data do."""
    rises = offsets.shape == (count + 1,) and bool((np.diff(offsets) >= 0).all())
    return rises and int(offsets[0]) == 0 and int(offsets[-1]) == end
