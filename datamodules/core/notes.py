"""What is passed over or odd while a dataset is read: counted by reason, with a few examples.

An error stops a dataset; an oddity that loses at most one item or object is noted here and reading
goes on. Readers and formats call `skipped` and `warning` wherever they notice one, also inside
lazy targets that run in another process: `collecting` gathers what is noted in its block.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

log = logging.getLogger(__name__)

Kind = Literal["skipped", "warning"]
EXAMPLES = 3  # sources that are kept for each reason


@dataclass
class Notes:
    """How often each reason was noted, by kind and reason, and the first sources of each.

    >>> with collecting() as notes:
    ...     skipped("images/._1.png", "hidden file")
    ...     skipped("images/._2.png", "hidden file")
    >>> notes.line()
    '2 skipped (hidden file: 2)'
    """

    counts: dict[tuple[Kind, str], int] = field(default_factory=dict)
    examples: dict[tuple[Kind, str], list[str]] = field(default_factory=dict)

    def add(self, kind: Kind, reason: str, sources: list[str], count: int = 1) -> None:
        """Count a reason once more, or `count` times with its first sources."""
        self.counts[kind, reason] = self.counts.get((kind, reason), 0) + count
        kept = self.examples.setdefault((kind, reason), [])
        kept += sources[: EXAMPLES - len(kept)]

    def merge(self, other: Notes) -> None:
        """Add what another process or another block noted."""
        for (kind, reason), count in other.counts.items():
            self.add(kind, reason, other.examples[kind, reason], count)

    def total(self, kind: Kind) -> int:
        """Return how many notes there are of a kind."""
        return sum(count for (of, _), count in self.counts.items() if of == kind)

    def line(self) -> str:
        """Return the counts in one line; empty where nothing was noted."""
        parts = []
        titles: dict[Kind, str] = {"skipped": "skipped", "warning": "warnings"}
        for kind, title in titles.items():
            reasons = [f"{r}: {n:,}" for (of, r), n in self.counts.items() if of == kind]
            if reasons:
                parts.append(f"{self.total(kind):,} {title} ({'; '.join(reasons)})")
        return ", ".join(parts)

    def summary(self, records: int, patches: int) -> str:
        """Return the line of counts that a preparation ends with."""
        read = f"{records:,} images read, " if records else ""
        return ", ".join(part for part in (f"{read}{patches:,} patches", self.line()) if part)

    def rows(self) -> list[dict[str, Any]]:
        """Return one plain dictionary for each reason."""
        return [
            {
                "kind": kind,
                "reason": reason,
                "count": count,
                "examples": self.examples[kind, reason],
            }
            for (kind, reason), count in self.counts.items()
        ]

    def lines(self) -> list[str]:
        """Return each reason with its count and its first sources, for people."""
        told = []
        for (kind, reason), count in self.counts.items():
            examples = self.examples[kind, reason]
            more = ", ..." if count > len(examples) else ""
            told.append(f"{count:,} {kind}: {reason} ({', '.join(examples)}{more})")
        return told

    def to_json(self) -> str:
        """Return the notes as they are kept in a store's attributes."""
        return json.dumps(self.rows(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Notes:
        """Read what `to_json` returned."""
        notes = cls()
        for row in json.loads(text):
            notes.add(row["kind"], row["reason"], list(row["examples"]), int(row["count"]))
        return notes


_current: ContextVar[Notes | None] = ContextVar("notes", default=None)


@contextmanager
def collecting() -> Iterator[Notes]:
    """Gather everything that is noted within the block, in this thread and process."""
    notes = Notes()
    token = _current.set(notes)
    try:
        yield notes
    finally:
        _current.reset(token)


def skipped(source: object, reason: str) -> None:
    """Note a file or item that was passed over; items of one kind have one reason: it is counted.

    The source is named relative to the dataset's folder.
    """
    _note("skipped", source, reason)


def warning(source: object, reason: str) -> None:
    """Note an oddity that was read all the same; arguments as for `skipped`."""
    _note("warning", source, reason)


def _note(kind: Kind, source: object, reason: str) -> None:
    notes = _current.get()
    if notes is None:
        log.warning("%s: %s (%s)", source, reason, kind)
    else:
        notes.add(kind, reason, [str(source)])
