"""What a check found, in a form that a person reads and a program counts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from datamodules.core.atomic import write_json
from datamodules.core.errors import StoreError
from datamodules.reader import DatasetReader
from datamodules.store.reader import read_attributes

NAMED = 50
"""Offenders of one kind that are named; more are counted."""


class Level(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: an error makes the data unusable; a warning must be known; an info is a fact.
        where: file, source and row.
        what: what is the matter and, for errors, what to do.
    """

    level: Level
    where: str
    what: str


@dataclass(frozen=True)
class Report:
    """Everything that a check of one dataset found, errors first.

    Attributes:
        name: the dataset's name in the run.
        findings: what was found.
        records: raw images that were read.
        patches: stored patches that were read.
    """

    name: str
    findings: tuple[Finding, ...]
    records: int
    patches: int

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return all(finding.level is not Level.ERROR for finding in self.findings)

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        counts = Counter(finding.level for finding in self.findings)
        verdict = "sound" if self.ok else "NOT SOUND"
        return (
            f"{verdict}; {self.records} images and {self.patches} stored patches read, "
            f"{counts[Level.ERROR]} errors, {counts[Level.WARNING]} warnings"
        )

    def text(self) -> str:
        """One line for the dataset and one for each finding."""
        lines = [f"  {f.level}: {f.where}: {f.what}" for f in self.findings]
        return "\n".join([f"{self.name}: {self.summary}", *lines])


class Findings:
    """Collects findings; of each kind the first ones are named and the rest is counted."""

    def __init__(self) -> None:
        self._named: list[Finding] = []
        self._counts: Counter[tuple[Level, str]] = Counter()

    def add(self, level: Level, kind: str, where: str, what: str) -> None:
        """Note one finding.

        Args:
            level: how bad it is.
            kind: what it has in common with others, for counting.
            where: file, source and row.
            what: what is the matter.
        """
        self._counts[level, kind] += 1
        if self._counts[level, kind] <= NAMED:
            self._named.append(Finding(level, where, what))

    def errors(self) -> int:
        """Errors so far, the unnamed ones included."""
        return sum(count for (level, _), count in self._counts.items() if level is Level.ERROR)

    def all(self) -> tuple[Finding, ...]:
        """Errors, warnings, facts; each in the order in which it was found."""
        more = [
            Finding(level, f"{count - NAMED} more", kind)
            for (level, kind), count in self._counts.items()
            if count > NAMED
        ]
        order = list(Level)
        return tuple(sorted([*self._named, *more], key=lambda f: order.index(f.level)))


def note_of(path: Path) -> Path:
    """Where the note of the store `path` lies."""
    return path.with_suffix(".verified.json")


def note(dataset: DatasetReader, sound: bool) -> None:
    """Note that a dataset was verified; where it was not sound, an older note goes.

    Raises:
        StoreError: the note cannot be written.
    """
    path = note_of(dataset.store_path)
    try:
        if sound:
            write_json(path, _state(dataset.store_path))
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error}); make its folder writable"
        ) from error


def is_verified(dataset: DatasetReader) -> bool:
    """Whether the store was found sound and is the same file since; it is not read for that."""
    path = dataset.store_path
    try:
        return bool(json.loads(note_of(path).read_text()) == _state(path))
    except (OSError, ValueError, StoreError):
        return False


def _state(path: Path) -> dict[str, str | int]:
    """What changes when a store is written anew or changed in place."""
    status = path.stat()
    digest = str(read_attributes(path)["digest"])
    return {"digest": digest, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
