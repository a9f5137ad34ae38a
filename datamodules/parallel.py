"""Work on records in several processes: in order, bounded in memory, ended with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing.connection import wait
from typing import TypeVar

from datamodules.records import Record

R = TypeVar("R")

_CHUNK = 8  # records per job: enough to hide the cost of handing patches between processes
_PARALLEL_FROM = 64  # fewer records than this are done sooner than processes start


def in_order(
    work: Callable[[list[Record]], list[R]], records: Iterator[Record], workers: int
) -> Generator[tuple[Record, R], None, None]:
    """Results in the order of the records, with a bounded number of jobs under way.

    Close the generator when leaving it early: jobs that have not begun are then dropped.

    Args:
        work: picklable; one result for each record of a list.
        records: what to work on.
        workers: processes.
    """
    first = list(islice(records, _PARALLEL_FROM))
    if workers == 1 or len(first) < _PARALLEL_FROM:
        for record in _chain(first, records):
            yield record, work([record])[0]
        return
    chunks = _chunks(_chain(first, records))
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, fork, initializer=_depend_on_parent)
    try:
        waiting: deque[tuple[list[Record], Future[list[R]]]] = deque()
        for chunk in chunks:
            waiting.append((chunk, pool.submit(work, chunk)))
            if len(waiting) > 2 * workers:
                done, future = waiting.popleft()
                yield from zip(done, future.result(), strict=True)
        for done, future in waiting:
            yield from zip(done, future.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _depend_on_parent() -> None:
    """Leave interrupts to the parent, and end when it is gone, however it ended.

    A worker that outlived its parent would wait for jobs for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _chain(first: list[Record], rest: Iterator[Record]) -> Iterator[Record]:
    yield from first
    yield from rest


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, _CHUNK)):
        yield chunk
