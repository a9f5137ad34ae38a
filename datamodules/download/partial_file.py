"""A file that is still arriving, and the note beside it that says what it is a part of."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from datamodules.core.atomic import publish, write_json


@dataclass(frozen=True)
class Origin:
    """What a server said about a file when it began to arrive.

    Attributes:
        url: where it comes from.
        etag, modified: the headers ETag and Last-Modified; empty where not sent.
        total: its size in bytes; 0 where unknown.
    """

    url: str
    etag: str
    modified: str
    total: int

    @property
    def validator(self) -> str:
        """What If-Range compares; a weak ETag may not be used there (RFC 9110, 13.1.5)."""
        return self.modified if self.etag.startswith("W/") else self.etag or self.modified


class Partial:
    """The partial form of a file.

    Args:
        path: the file's final place; the partial file lies beside it.
    """

    def __init__(self, path: Path) -> None:
        self.final = path
        self.path = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")

    def __len__(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self, url: str) -> Origin | None:
        """What the partial file belongs to; None where that is unknown or another address."""
        try:
            origin = Origin(**json.loads(self.note.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return origin if origin.url == url else None

    def begin(self, origin: Origin) -> None:
        """Start anew. What lay here goes first: it must never lie under another file's note."""
        self.discard()
        write_json(self.note, asdict(origin))

    def discard(self) -> None:
        """Drop what has come so far."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Put the whole file in its final place."""
        publish(self.path, self.final)
        self.note.unlink(missing_ok=True)
