"""The journal of a sweep: what is finished stays finished.

One line of JSON per finished cell, appended in one write. A line that an interruption cut short
does not parse or does not match its checksum, and is passed over: its cell runs again.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Journal:
    """Predictions of finished cells by key.

    Args:
        path: file to read and to append to; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, NDArray[Any]] = {}
        if path.is_file():
            for line in path.read_bytes().split(b"\n"):
                entry = _parse(line)
                if entry is not None:
                    self._found[entry[0]] = entry[1]
            self._end_torn_line()

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> NDArray[Any]:
        return self._found[key]

    def __len__(self) -> int:
        return len(self._found)

    def add(self, key: str, predicted: NDArray[Any]) -> None:
        """Keep one cell's predictions, on disk before this returns."""
        raw = predicted.tobytes()
        entry = {
            "key": key,
            "type": predicted.dtype.str,
            "crc": zlib.crc32(raw),
            "data": base64.b64encode(zlib.compress(raw, 6)).decode(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            file.write(json.dumps(entry).encode() + b"\n")
            os.fsync(file.fileno())
        self._found[key] = predicted

    def _end_torn_line(self) -> None:
        """A cut line must not swallow the next one."""
        with self.path.open("rb+") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _parse(line: bytes) -> tuple[str, NDArray[Any]] | None:
    try:
        entry = json.loads(line)
        raw = zlib.decompress(base64.b64decode(entry["data"]))
        if zlib.crc32(raw) != entry["crc"]:
            return None
        return entry["key"], np.frombuffer(raw, np.dtype(entry["type"]))
    except (ValueError, KeyError, TypeError, zlib.error):
        return None
