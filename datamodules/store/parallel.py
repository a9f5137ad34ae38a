"""Process records in parallel: in order, in bounded memory; workers end with their parent."""

import itertools
import mmap
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any, TypeVar

import cv2
import numpy as np

from datamodules.core.records import Record

R = TypeVar("R")

# The processes are the parallelism; each has one core. Set before they are forked: a child whose
# parent has used OpenCV threads hangs when it changes their number.
cv2.setNumThreads(1)

ALONE_S = 0.2  # seconds of work that this process does alone; starting others costs more
_JOB_S = 0.1  # seconds of work per job: enough to hide the cost of passing patches on
_MAX_RECORDS = 32  # per job

_SLOT_BYTES = 2**26  # room for one job's arrays; the system gives only the pages that are used
_LARGE = 2**12  # bytes; smaller arrays are not worth a place in a slot


def in_order(
    work: Callable[[list[Record]], list[R]], records: Iterator[Record], workers: int
) -> Generator[tuple[Record, R], None, None]:
    """Yield results in the order of the records, with a bounded number of jobs in flight.

    Processes start only if the first records show that there is enough work for them. Close the
    generator to leave it early: jobs that have not started are then dropped. `work` is picklable
    and returns one result for each record of a list; 1 worker does everything in this process.
    Copy the arrays of a result that are to outlast the next: their memory is used again.
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
    jobs = iter(lambda: list(itertools.islice(records, size)), [])
    slots = _Slots(2 * workers + 1)
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, fork, initializer=_init_worker, initargs=(work, slots))
    pending: deque[tuple[list[Record], Future[Any]]] = deque()
    try:
        for number, job in enumerate(jobs):
            if len(pending) == slots.count:
                yield from _finished(*pending.popleft(), slots)
            pending.append((job, _submit(pool, job, number % slots.count)))
        while pending:
            yield from _finished(*pending.popleft(), slots)
    finally:
        pool.shutdown(cancel_futures=True)


class _Slots:
    """Shared memory through which processes pass arrays on; a pipe copies them several times.

    Made before the processes are forked. A new page costs more than filling it, so that the
    slots of finished jobs are used again.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, count * _SLOT_BYTES)

    def put(self, slot: int, result: Any) -> tuple[int, bytes, list[slice] | None]:
        """Return what to send through the pipe; all of it if the arrays do not fit."""
        arrays: list[memoryview] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            small = len(raw := buffer.raw()) < _LARGE
            if not small:
                arrays.append(raw)
            return small

        head = pickle.dumps(result, protocol=5, buffer_callback=keep)
        ends = np.cumsum([0, *(len(array) for array in arrays)]).tolist()
        if ends[-1] > _SLOT_BYTES:
            return slot, pickle.dumps(result), None
        spans = [slice(start, end) for start, end in itertools.pairwise(ends)]
        room = self._room(slot)
        for span, array in zip(spans, arrays, strict=True):
            room[span] = array
        return slot, head, spans

    def take(self, slot: int, head: bytes, spans: list[slice] | None) -> Any:
        """Return the result; its large arrays lie in the slot."""
        room = self._room(slot)
        return pickle.loads(head, buffers=[room[span] for span in spans or ()])

    def _room(self, slot: int) -> memoryview:
        return memoryview(self._memory)[slot * _SLOT_BYTES : (slot + 1) * _SLOT_BYTES]


def _finished(
    job: list[Record], future: Future[Any], slots: _Slots
) -> Iterator[tuple[Record, Any]]:
    return zip(job, slots.take(*future.result()), strict=True)


def _submit(pool: ProcessPoolExecutor, job: list[Record], slot: int) -> Future[Any]:
    """Submit a job. The first starts the processes: interrupts wait until they ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_work, job, slot)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(job: list[Record], slot: int) -> Any:
    work, slots = _in_this_process
    return slots.put(slot, work(job))


_in_this_process: tuple[Callable[[list[Record]], list[Any]], _Slots]  # of a worker


def _init_worker(*given: Any) -> None:
    """Ignore interrupts, and exit with the parent instead of waiting for jobs forever."""
    global _in_this_process
    _in_this_process = given
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
