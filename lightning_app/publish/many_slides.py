"""Many slides one after the other, or spread over processes with a device each."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from datamodules.core import progress
from datamodules.core.errors import SlideError, UserError

log = logging.getLogger(__name__)

Work = Callable[[Path], str]
"""What is done with one slide; returns a line about it."""

_work: Work | None = None  # of this process


def devices(processes: int) -> list[str]:
    """Return the device of each process: all GPUs in turn, else the CPU; 0 takes one per GPU."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = processes or max(1, gpus)
    return [f"cuda:{number % gpus}" if gpus else "cpu" for number in range(count)]


def over_slides(
    slides: Sequence[Path],
    prepare: Callable[[str], Work],
    processes: int,
    tell: Callable[[str], None],
) -> None:
    """Work on all slides; a slide that fails is reported at the end, and the others are done.

    Args:
        slides: the slides.
        prepare: picklable; loads what the work needs onto a device.
        processes: see `devices`; no more are started than there are slides.
        tell: gets the line about each slide that is done.

    Raises:
        SlideError: some slides failed; the message names them.
    """
    places = devices(processes)[: len(slides)]
    failures: dict[Path, str] = {}
    results = (
        _alone(slides, prepare(places[0])) if len(places) == 1 else _spread(slides, prepare, places)
    )
    for path, line, problem in results:
        if problem:
            failures[path] = problem
            log.warning("failed: %s", problem)
        else:
            tell(line)
    if failures:
        told = "; ".join(failures[path] for path in slides if path in failures)
        raise SlideError(f"{len(failures)} of {len(slides)} slides failed: {told}")


def _alone(slides: Sequence[Path], work: Work) -> Iterator[tuple[Path, str, str]]:
    for path in slides:
        yield path, *_attempt(work, path)


def _spread(
    slides: Sequence[Path], prepare: Callable[[str], Work], places: Sequence[str]
) -> Iterator[tuple[Path, str, str]]:
    # Not forked: CUDA does not survive it.
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    for place in places:
        queue.put(place)
    level = logging.getLogger().level
    pool = ProcessPoolExecutor(len(places), context, _start, (prepare, queue, level))
    try:
        jobs = {pool.submit(_one, path): path for path in slides}
        for job in as_completed(jobs):
            try:
                yield jobs[job], *job.result()
            except BrokenProcessPool as error:
                raise SlideError(
                    "a process ended before its slide was done, perhaps for lack of memory; "
                    "take fewer --processes or a smaller --batch-size"
                ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(prepare: Callable[[str], Work], places: multiprocessing.Queue[str], level: int) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    logging.basicConfig(level=level, format="%(message)s", force=True)
    progress.shown_here = False
    _work = prepare(places.get())


def _watch(parent: int) -> None:
    """End this process when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def _one(path: Path) -> tuple[str, str]:
    if _work is None:
        raise RuntimeError("the process was not prepared")
    return _attempt(_work, path)


def _attempt(work: Work, path: Path) -> tuple[str, str]:
    """Return the line about a slide, and its error in one line; one of the two is empty."""
    try:
        return work(path), ""
    except UserError as error:
        return "", str(error)
