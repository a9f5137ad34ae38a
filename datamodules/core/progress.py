"""Progress of long steps on the terminal's error stream; without a terminal nothing is shown."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

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

OnProgress = Callable[[str, int, int], None]  # gets the step, and its new records and patches

_REFRESH_S = 0.1
LINE_S = 60.0
"""Seconds between two lines about the progress where there is no terminal."""

shown_here = True
"""Whether this process may draw bars; the processes of one terminal would draw over each other."""

log = logging.getLogger(__name__)


@contextmanager
def transfers(console: Console | None = None) -> Iterator[Progress]:
    """Show bars of files that are being downloaded."""
    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.description}", markup=False)
    console = console or Console(stderr=True)
    bars = Progress(text, BarColumn(), *columns, console=console, disable=not console.is_terminal)
    with bars, _log_above():
        yield bars


@contextmanager
def progress_display(name: str, console: Console | None = None) -> Iterator[OnProgress]:
    """Show lines that count records and patches while a store is written or checked.

    The display appears at the first call, so a dataset that is up to date shows nothing. It is
    drawn only when called: a thread of its own could hold a lock when worker processes are forked.
    """
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}:", markup=False), _Counts(), TimeElapsedColumn())
    hidden = not console.is_terminal
    bars = Progress(*columns, console=console, auto_refresh=False, transient=True, disable=hidden)
    tasks: dict[str, TaskID] = {}
    records: Counter[str] = Counter()
    drawn = 0.0

    def advance(step: str, new_records: int, new_patches: int) -> None:
        nonlocal drawn
        if not tasks:
            shown.enter_context(bars)
            shown.enter_context(_log_above())
        if step not in tasks:
            tasks[step] = bars.add_task(f"{name}: {step}", total=None, records=0)
        records[step] += new_records
        bars.update(tasks[step], advance=new_patches, records=records[step])
        if time.monotonic() - drawn >= _REFRESH_S:
            bars.refresh()
            drawn = time.monotonic()

    with ExitStack() as shown:
        yield advance


@contextmanager
def progress_bar(name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show how much of a known total is done: as a bar, or a line a minute without a terminal.

    Yields a function that takes the number of units that are new.
    """
    console = Console(stderr=True)
    hidden = not (console.is_terminal and shown_here)
    text = TextColumn("{task.description}: {task.completed}/{task.total}", markup=False)
    columns = (text, BarColumn(), _Counts(unit), TimeRemainingColumn())
    bars = Progress(*columns, console=console, auto_refresh=False, transient=True, disable=hidden)
    task = bars.add_task(name, total=total, records=0)
    done, started = 0, time.monotonic()
    told = drawn = started

    def advance(new: int) -> None:
        nonlocal done, told, drawn
        done, now = done + new, time.monotonic()
        bars.update(task, advance=new)
        if now - drawn >= _REFRESH_S:
            bars.refresh()
            drawn = now
        if hidden and now - told >= LINE_S:
            told, rate = now, done / (now - started)
            log.info("%s: %d of %d %s, %.0f a second", name, done, total, unit, rate)

    with bars, _log_above():
        yield advance


class _Counts(ProgressColumn):
    """Records and patches so far, and patches per second over the last half minute."""

    def __init__(self, unit: str = "patches") -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        records = task.fields["records"]
        parts = [f"{records} records"] if records else []
        parts.append(f"{task.completed:.0f} {self.unit}")
        if task.speed is not None:
            parts.append(f"{task.speed:.0f} {self.unit}/s")
        return Text(", ".join(parts))


@contextmanager
def _log_above() -> Iterator[None]:
    """Print log messages above the display.

    Log handlers keep the error stream that they were created with; rich replaces it meanwhile.
    """
    drawn = sys.stderr
    original = getattr(drawn, "rich_proxied_file", None)
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if type(handler) is logging.StreamHandler and handler.stream is original
    ]
    for handler in handlers:
        handler.setStream(drawn)
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(original)
