"""How far a long step is, on the terminal's error stream. Where there is no terminal, nothing."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, and the records and patches that were just done."""

_SHOWN_EVERY_S = 0.1


@contextmanager
def transfers(console: Console | None = None) -> Iterator[Progress]:
    """Bars of files that are fetched."""
    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.description}")
    console = console or Console(stderr=True)
    bars = Progress(text, BarColumn(), *columns, console=console, disable=not console.is_terminal)
    with bars, _log_above():
        yield bars


class ProgressDisplay:
    """Lines that count records and patches while a store is written or checked.

    A context manager; call it as a `OnProgress`. It appears at the first call, so that what is up to
    date shows nothing, and draws only when called: a thread of its own could hold a lock at the
    moment when worker processes are forked.

    Args:
        name: of the dataset.
        console: where to; the terminal's error stream where None.
    """

    def __init__(self, name: str, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        columns = (
            TextColumn("{task.description}:"),
            _Counts(),
            TimeElapsedColumn(),
        )
        self.name = name
        self._bars = Progress(
            *columns,
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._records: dict[str, int] = {}
        self._drawn = 0.0
        self._open = ExitStack()

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def __call__(self, what: str, records: int, patches: int) -> None:
        """Count; draw a few times a second."""
        if not self._tasks:
            self._open.enter_context(self._bars)
            self._open.enter_context(_log_above())
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(f"{self.name}: {what}", total=None, records=0)
            self._records[what] = 0
        self._records[what] += records
        self._bars.update(self._tasks[what], advance=patches, records=self._records[what])
        if time.monotonic() - self._drawn >= _SHOWN_EVERY_S:
            self._bars.refresh()
            self._drawn = time.monotonic()


class _Counts(ProgressColumn):
    """Records and patches so far, and patches per second over the last half minute."""

    def render(self, task: Task) -> Text:
        records = task.fields["records"]
        parts = [f"{records} records"] if records else []
        parts.append(f"{task.completed:.0f} patches")
        if task.speed is not None:
            parts.append(f"{task.speed:.0f} patches/s")
        return Text(", ".join(parts))


@contextmanager
def _log_above() -> Iterator[None]:
    """Messages appear above what is drawn: handlers kept the error stream that they began with."""
    drawn = sys.stderr
    handlers = [
        (handler, handler.stream)
        for handler in logging.getLogger().handlers
        if type(handler) is logging.StreamHandler
        and handler.stream is getattr(drawn, "rich_proxied_file", None)
    ]
    for handler, _ in handlers:
        handler.setStream(drawn)
    try:
        yield
    finally:
        for handler, stream in handlers:
            handler.setStream(stream)
