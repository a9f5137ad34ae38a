"""Several downloads at once, with one display of them all that can be stopped."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.progress import Progress

from datamodules.core.disk_space import size_text
from datamodules.core.errors import DownloadError
from datamodules.core.progress import LINE_S, transfers
from datamodules.core.records import Archive
from datamodules.download.archives import check
from datamodules.download.http_transfer import RetryPolicy
from datamodules.download.sources import fetch

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Files that are fetched at once; more would annoy a publisher's server."""


class Transfers:
    """Downloads in threads, a bar for each and one for their sum."""

    def __init__(self, pool: ThreadPoolExecutor, bars: Progress, policy: RetryPolicy) -> None:
        self.policy = policy
        self.unpacking = threading.Lock()  # one archive at a time: memory, and folders that merge
        self._pool, self._bars = pool, bars
        self._all = bars.add_task("all files", total=None)
        self._files: dict[Path, tuple[int, int]] = {}  # bytes received, and in total
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._told = time.monotonic()

    def start(self, archive: Archive, path: Path) -> "Future[None]":
        """Fetch or check a file as soon as fewer than `AT_ONCE` others are being fetched."""
        self._count(path, 0, archive.bytes)
        return self._pool.submit(self._fetch, archive, path)

    def stop(self) -> None:
        """Let all threads end with the next bytes that they receive; partial files are kept."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, archive: Archive, path: Path) -> None:
        bar = self._bars.add_task(path.name, total=archive.bytes or None)

        def report(received: int, total: int) -> None:
            if self._stopped.is_set():
                raise DownloadError(f"{path.name}: interrupted; the same command resumes it")
            self._bars.update(bar, completed=received, total=total or None)
            self._count(path, received, total)

        try:
            if path.exists():
                check(path, archive)
            else:
                fetch(archive, path, report, self.policy)
        finally:
            self._bars.remove_task(bar)

    def _count(self, path: Path, received: int, total: int) -> None:
        with self._lock:
            self._files[path] = received, total
            done, total = (sum(part) for part in zip(*self._files.values(), strict=True))
            self._bars.update(self._all, completed=done, total=max(done, total))
            if self._bars.disable and time.monotonic() - self._told >= LINE_S:
                self._told = time.monotonic()
                log.info("downloads: %s of %s", size_text(done), size_text(max(done, total)))


@contextmanager
def several(policy: RetryPolicy | None = None) -> Iterator[Transfers]:
    """Fetch files together within the block; Ctrl-C keeps partial files."""
    with transfers() as bars, ThreadPoolExecutor(AT_ONCE) as pool:
        running = Transfers(pool, bars, policy or RetryPolicy())
        try:
            yield running
        except BaseException:
            running.stop()
            raise
