"""The journal of a sweep: predictions of finished jobs, which are never computed again.

One line of JSON per finished job, appended in one write. A line that an interruption cut short
does not parse or does not match its checksum; it is ignored, and its job runs again.
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


class Journal(dict[str, NDArray[Any]]):
    """Predictions of finished jobs by key, in a file that need not exist yet."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        content = path.read_bytes() if path.is_file() else b""
        self.update(entry for line in content.split(b"\n") if (entry := _parse(line)) is not None)
        self._torn = bool(content) and not content.endswith(b"\n")

    def add(self, key: str, predicted: NDArray[Any]) -> None:
        """Keep one job's predictions; they are on disk when this returns."""
        raw = predicted.tobytes()
        entry = {
            "key": key,
            "type": predicted.dtype.str,
            "crc": zlib.crc32(raw),
            "data": base64.b64encode(zlib.compress(raw, 6)).decode(),
        }
        line = json.dumps(entry).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            file.write(b"\n" + line if self._torn else line)  # end a line that was cut short
            os.fsync(file.fileno())
        self._torn = False
        self[key] = predicted


def _parse(line: bytes) -> tuple[str, NDArray[Any]] | None:
    try:
        entry = json.loads(line)
        raw = zlib.decompress(base64.b64decode(entry["data"]))
        if zlib.crc32(raw) != entry["crc"]:
            return None
        return entry["key"], np.frombuffer(raw, np.dtype(entry["type"]))
    except (ValueError, KeyError, TypeError, zlib.error):
        return None
