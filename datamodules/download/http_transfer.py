"""One file over HTTP: resumed after an interruption, checked, never a web page in its place."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from datamodules.core.errors import ChecksumError, DownloadError
from datamodules.core.records import Archive
from datamodules.download.archives import check
from datamodules.download.partial_file import Origin, Partial

log = logging.getLogger(__name__)

Report = Callable[[int, int], None]
"""Called with the bytes that have come so far and all bytes (0 where unknown)."""

_BLOCK = 1 << 16  # what a dropped connection may cost at most
_PROGRESS = 1 << 20  # a connection that brought this much does not count as failed
_CONNECT_S = 20.0
_LONGEST_WAIT_S = 60.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that another attempt may better
_PAGE = (b"<!doctype html", b"<html")
_NO_FILE = (
    "the server sends a web page in the place of the file; open the address in a browser: "
    "it is outdated, or asks for a login or a form"
)


@dataclass(frozen=True)
class Patience:
    """How long to insist.

    Attributes:
        attempts: connections in a row that may bring nothing.
        wait: seconds before the second attempt; doubled before each further one.
        timeout: seconds of silence after which a connection counts as dead.
    """

    attempts: int = 6
    wait: float = 1.0
    timeout: float = 60.0


class _DroppedError(Exception):
    """The connection ended early or the server is busy; another attempt may help."""

    def __init__(self, reason: object, wait: float = 0.0) -> None:
        super().__init__(str(reason))
        self.wait = wait


class _ChangedError(_DroppedError):
    """What lies here belongs to another version of the file: only a new start helps."""


def fetch(archive: Archive, path: Path, report: Report, patience: Patience) -> None:
    """Fetch a file, going on where an earlier attempt stopped; `path` appears when it is whole.

    Raises:
        DownloadError: the server refuses, sends a web page, or keeps dropping the connection;
            what has come so far is kept for the next call.
        ChecksumError: size or checksum differ from what the publisher announced.
    """
    partial = Partial(path)
    for last in (False, True):
        resumed = len(partial) > 0
        resumed |= _insist(archive, partial, report, patience)
        try:
            check(partial.path, archive)
        except ChecksumError:
            partial.discard()
            if last or not resumed:
                raise
            # Pieces of two versions that the server did not tell apart: a clean start decides.
            log.warning("%s: what was resumed is not the published file; from the start", path)
        else:
            partial.finish()
            return


def _insist(archive: Archive, partial: Partial, report: Report, patience: Patience) -> bool:
    """Transfer until the file is whole; whether that took more than one connection."""
    failures, several, furthest = 0, False, len(partial)
    while True:
        try:
            _transfer(archive, partial, report, patience.timeout)
            return several
        except _DroppedError as error:
            if isinstance(error, _ChangedError):
                partial.discard()
            came = len(partial)
            several |= came > 0
            # Against the furthest: a server that sends the same part again makes no progress.
            failures = 0 if came >= furthest + _PROGRESS else failures + 1
            furthest = max(furthest, came)
            if failures >= patience.attempts:
                raise DownloadError(
                    f"{archive.url}: gave up after {failures} attempts ({error}); {came} bytes "
                    "are kept: run the same command again to go on from there"
                ) from error
            wait = max(error.wait, patience.wait * 2 ** max(0, failures - 1))
            log.warning("%s: %s; next attempt in %.0f s", archive.url, error, wait)
            time.sleep(min(wait, _LONGEST_WAIT_S))


def _transfer(archive: Archive, partial: Partial, report: Report, timeout: float) -> None:
    """One connection: append to the partial file what is missing of it."""
    origin = partial.origin(archive.url)
    start = len(partial) if origin else 0
    if origin and start and start == origin.total:
        return
    headers = {"Accept-Encoding": "identity"}
    if origin and start:
        headers["Range"] = f"bytes={start}-"
        if origin.validator:
            headers["If-Range"] = origin.validator
    with _asked(archive.url, headers, timeout) as response:
        _check_answer(archive, response)
        if response.status_code == HTTPStatus.PARTIAL_CONTENT:
            total = _continued(response, start, origin)
        else:
            start, total = 0, _begun(archive, response, partial)
        came = _write(archive.url, response, partial, start, total, report)
    if total and came != total:
        raise _DroppedError(f"{came} of {total} bytes came")


def _write(
    url: str, response: requests.Response, partial: Partial, start: int, total: int, report: Report
) -> int:
    try:
        with partial.path.open("ab" if start else "wb") as file:
            for block in _blocks(url, response, first=not start):
                file.write(block)
                report(file.tell(), total)
            return file.tell()
    except OSError as error:
        raise DownloadError(
            f"{partial.path}: cannot be written ({error}); make room and run the same command "
            "again, it goes on from there"
        ) from error


def _blocks(url: str, response: requests.Response, first: bool) -> Iterator[bytes]:
    """The body as it is sent, never decoded: a .gz file must stay one."""
    try:
        for block in response.raw.stream(_BLOCK, decode_content=False):
            if first and block.lstrip()[:15].lower().startswith(_PAGE) and not _wants_page(url):
                raise DownloadError(f"{url}: {_NO_FILE}")
            first = False
            yield block
    except urllib3.exceptions.HTTPError as error:
        raise _DroppedError(f"the connection broke off ({type(error).__name__})") from error


@contextmanager
def _asked(url: str, headers: dict[str, str], timeout: float) -> Iterator[requests.Response]:
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=(_CONNECT_S, timeout))
    except requests.exceptions.SSLError as error:
        raise DownloadError(f"{url}: the server's certificate is not trusted ({error})") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _DroppedError(f"no connection ({_reason(error)})") from error
    except requests.RequestException as error:
        raise DownloadError(f"{url}: cannot be asked for ({error})") from error
    with response:
        yield response


def _reason(error: requests.RequestException) -> str:
    """The cause without the layers that libraries wrap around it."""
    cause = getattr(error.args[0], "reason", error) if error.args else error
    return str(cause).rsplit(": ", 1)[-1]


def _check_answer(archive: Archive, response: requests.Response) -> None:
    status = response.status_code
    if status in _PASSING:
        wait = response.headers.get("Retry-After", "")
        raise _DroppedError(f"the server answers {status}", float(wait) if wait.isdigit() else 0.0)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise _ChangedError("the file on the server is shorter than what came of it before")
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise DownloadError(
            f"{archive.url}: the server answers {status} {response.reason}; the address is "
            "outdated, or the data need a login"
        )
    page = response.headers.get("Content-Type", "").startswith("text/html")
    if page and not _wants_page(archive.url):
        raise DownloadError(f"{archive.url}: {_NO_FILE}")


def _wants_page(url: str) -> bool:
    return urlsplit(url).path.endswith((".html", ".htm"))


def _begun(archive: Archive, response: requests.Response, partial: Partial) -> int:
    """Note what begins to arrive; its size in bytes, 0 where nobody tells."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else archive.bytes
    if archive.bytes and total != archive.bytes:
        raise ChecksumError(
            f"{archive.url}: the server offers {total} bytes, {archive.bytes} were announced: "
            "the publisher replaced the file, and the dataset's card must be brought up to date"
        )
    etag = response.headers.get("ETag", "")
    partial.begin(Origin(archive.url, etag, response.headers.get("Last-Modified", ""), total))
    return total


def _continued(response: requests.Response, start: int, origin: Origin | None) -> int:
    """Check that the server goes on with the same file where the partial one ends."""
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    total = origin.total if origin else 0
    if not told or int(told[1]) != start or (total and told[2] not in (str(total), "*")):
        raise _ChangedError("the server goes on with another part or another file")
    return total
