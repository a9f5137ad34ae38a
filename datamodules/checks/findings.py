"""Findings of a verification, and the stamp that a sound store receives."""

import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from datamodules.core.atomic import write_json
from datamodules.core.errors import StoreError
from datamodules.reader import DatasetReader
from datamodules.store.attributes import read_attributes

MAX_LISTED = 50  # findings of one kind; further ones are only counted


class Level(StrEnum):
    """An error makes the data unusable, a warning should be known, an info is a fact."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One result of a check."""

    level: Level
    where: str  # file, source and row
    what: str  # the problem and, for errors, its remedy


class Report:
    """Findings of the verification of one dataset, named as in the run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.records = self.patches = 0  # raw images and stored patches read
        self._listed: list[Finding] = []
        self._counts: Counter[tuple[Level, str]] = Counter()

    def add(self, level: Level, kind: str, where: object, what: str) -> None:
        """Add a finding; `kind` is what it has in common with others, for counting."""
        self._counts[level, kind] += 1
        if self._counts[level, kind] <= MAX_LISTED:
            self._listed.append(Finding(level, str(where), what))

    def count(self, level: Level) -> int:
        """Number of findings of a level."""
        return sum(count for (other, _), count in self._counts.items() if other is level)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.count(Level.ERROR)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Errors, warnings and infos, each in order of occurrence."""
        more = [
            Finding(level, f"{count - MAX_LISTED} more", kind)
            for (level, kind), count in self._counts.items()
            if count > MAX_LISTED
        ]
        order = list(Level)
        return tuple(sorted([*self._listed, *more], key=lambda f: order.index(f.level)))

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        return (
            f"{'sound' if self.ok else 'NOT SOUND'}; {self.records} images and {self.patches} "
            f"stored patches read, {self.count(Level.ERROR)} errors, "
            f"{self.count(Level.WARNING)} warnings"
        )


def stamp_of(path: Path) -> Path:
    """Return the path of a store's verification stamp."""
    return path.with_suffix(".verified.json")


def write_stamp(dataset: DatasetReader, sound: bool) -> None:
    """Stamp a store as verified, or remove the stamp of an unsound one; StoreError if it fails."""
    path = stamp_of(dataset.store_path)
    try:
        if sound:
            write_json(path, _state(dataset.store_path))
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        raise StoreError(f"the stamp {path.name} {problem}") from error


def is_verified(dataset: DatasetReader) -> bool:
    """Return whether the store was found sound and its file is unchanged, without reading it."""
    path = dataset.store_path
    try:
        return bool(json.loads(stamp_of(path).read_text()) == _state(path))
    except (OSError, ValueError, StoreError):
        return False


def _state(path: Path) -> dict[str, str | int]:
    """What changes when a store is rewritten or modified in place."""
    status = path.stat()
    digest = str(read_attributes(path)["digest"])
    return {"digest": digest, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
