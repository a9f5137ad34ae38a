"""What a store says of itself: its attributes, and the seals that show that nothing changed.

The attribute `digest` covers patches, targets, splits, groups and sources, and names caches of
features. `tables_seal` covers every table of the file, and `seal` all other attributes, these two
included. The seals are checked wherever a store is opened; only `verify`
reads the pixels again. Stores that were made before seals existed have none.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import StoreError
from datamodules.core.hdf5 import OpenFile
from datamodules.core.notes import Notes
from datamodules.core.records import Task, TaskKind

SCHEMA = 1
"""Version of the layout of a store; one of another version must be prepared again."""
SEAL, TABLES_SEAL = "seal", "tables_seal"
REMEDY = "delete the file and run `python -m lightning_app datasets prepare` again"

_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError)
_NEEDED: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("side", "count", "data_end"), (int, np.integer)),
    **dict.fromkeys(("digest", "tasks"), str),
    **dict.fromkeys(("synthetic", "compressed"), (bool, np.bool_)),
    "mpp": (float, np.floating),
}
_OPTIONAL: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "title", "licence", "settings", "fingerprint", "notes"), str),
    **dict.fromkeys((SEAL, TABLES_SEAL), str),
    "records": (int, np.integer),
}


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn whatever h5py and parsing raise on a damaged store into one line about it."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
            raise StoreError(f"{path}: no regular file; {REMEDY}")
        yield
    except FileNotFoundError as error:
        raise StoreError(
            f"{path}: no such store; run `python -m lightning_app datasets prepare`"
        ) from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(f"{path}: not a readable HDF5 store ({reason}); {REMEDY}") from error


def read_attributes(path: Path) -> dict[str, Any]:
    """Read the attributes of a finished store, without its arrays.

    Raises:
        StoreError: missing, not HDF5, unfinished, changed, or of another schema version.
    """
    with damage_told(path), OpenFile(path) as raw, open_store(raw) as (_, attributes):
        return attributes


@contextmanager
def open_store(raw: OpenFile, sealed: bool = True) -> Iterator[tuple[h5py.File, dict[str, Any]]]:
    """Read a store and check its attributes; what damage raises within the block is a StoreError.

    Args:
        raw: the .h5 file.
        sealed: refuse attributes that do not match their seal.
    """
    path = raw.path
    with damage_told(path), h5py.File(raw, "r") as file:
        attributes = attributes_in(file)
        size, _ = raw.state()
        if attributes.get("schema") != SCHEMA:
            version = attributes.get("schema", "none")
            raise StoreError(f"{path}: schema version {version}, expected {SCHEMA}; {REMEDY}")
        problem = _problem(attributes)
        if not problem and size < attributes["data_end"]:
            problem = f"{size} bytes, shorter than when it was written"
        if not problem and sealed and not attributes_match(attributes):
            problem = "its attributes are not what was written (seal differs)"
        if problem:
            raise StoreError(f"{path}: {problem}; {REMEDY}")
        tasks_from_json(attributes["tasks"])
        notes_of(attributes)
        yield file, attributes


def attributes_in(file: h5py.File) -> dict[str, Any]:
    """Return the attributes of an open store, all texts as str."""
    return {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in file.attrs.items()
    }


def set_attributes(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    """Write attributes, texts in a fixed length.

    HDF5 keeps texts of variable length in a heap without checksum, and may read a damaged one
    forever.
    """
    for name, value in attributes.items():
        file.attrs[name] = fixed_texts([value]).reshape(()) if isinstance(value, str) else value


def fixed_texts(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Return texts as UTF-8 of one fixed length."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, h5py.string_dtype("utf-8", max([1, *map(len, encoded)])))


def _problem(attributes: Mapping[str, Any]) -> str:
    for name, types in {**_NEEDED, **_OPTIONAL}.items():
        value = attributes.get(name)
        if not isinstance(value, types) and (name in attributes or name in _NEEDED):
            return f"attribute '{name}' is {type(value).__name__}"
    if attributes["side"] < 1 or attributes["count"] < 1:
        return f"{attributes['count']} patches of {attributes['side']} px"
    mpp = float(attributes["mpp"])
    return "" if math.isfinite(mpp) and mpp >= 0 else f"attribute 'mpp' is {mpp}"


def attributes_match(attributes: Mapping[str, Any]) -> bool:
    """Whether attributes are what was written, as far as a seal tells."""
    return SEAL not in attributes or attributes[SEAL] == seal_of_attributes(attributes)


def seal_of_attributes(attributes: Mapping[str, Any]) -> str:
    """SHA-256 over names, types and values of all attributes but the seal itself."""
    plain = {
        name: [type(value).__name__, value.item() if isinstance(value, np.generic) else str(value)]
        for name, value in attributes.items()
        if name != SEAL
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def notes_of(attributes: Mapping[str, Any]) -> Notes:
    """Return what was skipped or odd when a store was made; nothing for an older store."""
    return Notes.from_json(str(attributes.get("notes", "[]")))


def tasks_to_json(tasks: Sequence[Task]) -> str:
    """Tasks as text for a store's attributes."""
    return json.dumps([asdict(task) for task in tasks])


def tasks_from_json(text: str) -> tuple[Task, ...]:
    """The inverse of `tasks_to_json`."""
    return tuple(
        Task(**{**row, "kind": TaskKind(row["kind"]), "classes": tuple(row["classes"])})
        for row in json.loads(text)
    )
