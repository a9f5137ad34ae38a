"""Work on records in several processes: in order, bounded in memory, ended with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing.connection import wait
from typing import TypeVar

import cv2

from datamodules.core.records import Record

R = TypeVar("R")

# Processes are what is parallel here, and each has one core. To be said before they are forked: a
# child whose parent has had OpenCV threads hangs when it changes their number.
cv2.setNumThreads(1)

ALONE_S = 0.5
"""Seconds of work that this process does alone: less is done sooner than processes start."""
_JOB_S = 0.1  # seconds of work per job: enough to hide the cost of handing patches over
_MOST = 32  # records per job


def in_order(
    work: Callable[[list[Record]], list[R]], records: Iterator[Record], workers: int
) -> Generator[tuple[Record, R], None, None]:
    """Results in the order of the records, with a bounded number of jobs under way.

    Processes start when the first records have shown that there is enough to do for them. Close
    the generator when leaving it early: jobs that have not begun are then dropped.

    Args:
        work: picklable; one result for each record of a list.
        records: what to work on.
        workers: processes; 1 does everything in this one.
    """
    spent, done = 0.0, 0
    for record in records:
        started = time.perf_counter()
        (result,) = work([record])
        spent, done = spent + time.perf_counter() - started, done + 1
        yield record, result
        if workers > 1 and spent >= ALONE_S:
            break
    else:
        return
    # Whole regions, which take long and hold many patches, come one by one: results wait in memory.
    size = max(1, min(_MOST, round(_JOB_S * done / max(spent, 1e-6))))
    yield from _spread(work, _chunks(records, size), workers)


def _spread(
    work: Callable[[list[Record]], list[R]], chunks: Iterator[list[Record]], workers: int
) -> Iterator[tuple[Record, R]]:
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, fork, initializer=_begin)
    try:
        waiting: deque[tuple[list[Record], Future[list[R]]]] = deque()
        for chunk in chunks:
            waiting.append((chunk, _submit(pool, work, chunk)))
            if len(waiting) > 2 * workers:
                done, future = waiting.popleft()
                yield from zip(done, future.result(), strict=True)
        for done, future in waiting:
            yield from zip(done, future.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, work: Callable[[list[Record]], list[R]], chunk: list[Record]
) -> Future[list[R]]:
    """Hand over a job. The first starts the processes: until they ignore interrupts, those wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(work, chunk)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
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


def _chunks(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    while chunk := list(islice(records, size)):
        yield chunk
