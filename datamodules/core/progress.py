"""Progress of long work: one line on a terminal, or a line a minute in a log."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

DRAW_S = 0.5
"""Least seconds between two drawings of a line."""

LINE_S = 60.0
"""Seconds between two lines where there is no terminal."""

shown_here = True
"""Whether this process may draw; the processes of one terminal would draw over each other."""


def show_nothing() -> None:
    """Neither draw nor log progress in this process: another one of the same work does."""
    global shown_here, LINE_S
    shown_here, LINE_S = False, math.inf


_SEPARATOR = " · "
_NAME, _BAR, _WIDE = 20, 20, 120  # columns: of a name and a bar, and of a terminal with a bar

Item = TypeVar("Item")

log = logging.getLogger(__name__)


class Work:
    """Long work, and how much of it is done.

    Within `with`, a terminal shows its line and erases it at the end; the lines of a process that
    has none are logged. The line is made only when it is due, and drawn only by whoever reports
    progress: a thread of its own could hold a lock when loader processes are forked.

    Args:
        name: what is done.
        unit: plural of what is counted.
        total: number of units; None if unknown.
        note: returns further parts of the line, in place of the rate; called when one is due.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        total: int | None = None,
        note: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.name, self.unit, self.total, self.note = name, unit, total, note
        self.done = 0
        self._first: tuple[float, int] | None = None  # time and count of the first report
        self._due = time.monotonic() + LINE_S
        self._drawing: Progress | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Begin to show it."""
        global shown_here
        console = Console(stderr=True)
        if shown_here and sys.stderr.isatty() and console.is_interactive:
            bar = [BarColumn(_BAR)] if self.total and console.width >= _WIDE else []
            line = _Line(self, console, _BAR + 1 if bar else 0)
            # A file that takes the standard output goes on to take it.
            self._drawing = Progress(
                *bar,
                line,
                console=console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._drawing.add_task("", total=self.total, completed=self.done)
            self._stack.enter_context(self._drawing)
            self._stack.enter_context(_log_above())
            shown_here, self._due = False, 0.0
        return self

    def __exit__(self, *error: object) -> None:
        """Erase the line."""
        global shown_here
        self._stack.close()
        if self._drawing:
            self._drawing, shown_here, self._due = None, True, time.monotonic() + LINE_S

    def advance(self, new: int = 1) -> None:
        """Report that so many more units are done."""
        self.reach(self.done + new)

    def over(self, items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[Item]:
        """Yield items, and report the units in each one when the next is asked for."""
        for item in items:
            yield item
            self.advance(size(item))

    def reach(self, done: int) -> None:
        """Report that so many units are done."""
        self.done = done
        now = time.monotonic()
        self._first = self._first or (now, done)
        if now < self._due:
            return
        if self._drawing:
            self._due = now + DRAW_S
            self._drawing.update(self._drawing.task_ids[0], completed=done)
            self._drawing.refresh()
        else:
            self._due = now + LINE_S
            log.info("%s", _SEPARATOR.join(self.parts()))

    def parts(self) -> list[str]:
        """Return name, count, time left, and the note or the rate; from the first report on."""
        total = f"/{self.total}" if self.total else ""
        parts = [self.name, f"{self.done}{total} {self.unit}"]
        began, before = self._first or (0.0, 0)
        rate = (self.done - before) / max(time.monotonic() - began, 1e-9)
        if rate and self.total and self.done < self.total:
            parts.append(f"{_duration((self.total - self.done) / rate)} left")
        if self.note:
            return [*parts, *self.note()]
        if rate:
            parts.append(f"{rate:.{int(rate < 10)}f} {self.unit}/s")
        return parts


@contextmanager
def transfers(console: Console | None = None) -> Iterator[Progress]:
    """Show bars of files that are being downloaded."""
    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.description}", markup=False)
    console = console or Console(stderr=True)
    bars = Progress(text, BarColumn(), *columns, console=console, disable=not console.is_terminal)
    with bars, _log_above():
        yield bars


class _Line(ProgressColumn):
    """The parts of a line that fit into the terminal's width, beside a bar."""

    def __init__(self, work: Work, console: Console, beside: int) -> None:
        super().__init__(Column(no_wrap=True, overflow="crop"))
        self.work, self.console, self.beside = work, console, beside

    def render(self, task: Task) -> Text:
        width = self.console.width - self.beside
        return Text(fitted(self.work.parts(), width), no_wrap=True, overflow="crop")


def fitted(parts: Sequence[str], width: int) -> str:
    """Return a line of at most so many columns: the name is cropped, parts that do not fit go.

    >>> fitted(["epoch 2/50", "2312/100000 steps", "loss 0.713", "9 h left"], 44)
    'epoch 2/50 · 2312/100000 steps · loss 0.713'
    """
    name, count, *others = parts
    line = [count]
    room = width - len(_SEPARATOR + count) - min(len(name), _NAME)
    for part in others:
        if len(_SEPARATOR + part) <= room:
            line.append(part)
            room -= len(_SEPARATOR + part)
    return _SEPARATOR.join([name[: max(0, room + min(len(name), _NAME))], *line])


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{int(size > 60)}f} {unit}"
    return f"{seconds:.0f} s"


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
