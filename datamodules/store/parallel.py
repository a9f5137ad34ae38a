"""Process records in parallel: in order, in bounded memory; workers end with their parent."""

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

# The processes are the parallelism; each has one core. Set before they are forked: a child whose
# parent has used OpenCV threads hangs when it changes their number.
cv2.setNumThreads(1)

ALONE_S = 0.2  # seconds of work that this process does alone; starting others costs more
_JOB_S = 0.1  # seconds of work per job: enough to hide the cost of passing patches on
_MAX_RECORDS = 32  # per job


def in_order(
    work: Callable[[list[Record]], list[R]], records: Iterator[Record], workers: int
) -> Generator[tuple[Record, R], None, None]:
    """Yield results in the order of the records, with a bounded number of jobs in flight.

    Processes start only if the first records show that there is enough work for them. Close the
    generator to leave it early: jobs that have not started are then dropped. `work` is picklable
    and returns one result for each record of a list; 1 worker does everything in this process.
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
    # Large regions take long and hold many patches; they come one by one, since results wait in
    # memory.
    size = max(1, min(_MAX_RECORDS, round(_JOB_S * done / max(spent, 1e-6))))
    jobs = iter(lambda: list(islice(records, size)), [])
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, fork, initializer=_init_worker)
    pending: deque[tuple[list[Record], Future[list[R]]]] = deque()
    try:
        for job in jobs:
            pending.append((job, _submit(pool, work, job)))
            if len(pending) > 2 * workers:
                finished, future = pending.popleft()
                yield from zip(finished, future.result(), strict=True)
        for finished, future in pending:
            yield from zip(finished, future.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, work: Callable[[list[Record]], list[R]], job: list[Record]
) -> Future[list[R]]:
    """Submit a job. The first starts the processes: interrupts wait until they ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(work, job)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _init_worker() -> None:
    """Ignore interrupts, and exit with the parent instead of waiting for jobs forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
