"""Download of one file over HTTP, resumed after interruptions and verified."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from pathlib import Path

import requests
import urllib3

from datamodules.core.atomic import publish, write_json
from datamodules.core.errors import ChecksumError, DiskError, DownloadError
from datamodules.core.records import Archive
from datamodules.download.archives import check
from datamodules.download.http_response import (
    ChangedError,
    DroppedError,
    is_page,
    refuse_page,
    response_to,
)

log = logging.getLogger(__name__)

Report = Callable[[int, int], None]  # gets the bytes received so far and in total (0: unknown)

_BLOCK = 1 << 16  # bytes lost at most when a connection drops
_PROGRESS = 1 << 20  # a connection that brought this many bytes does not count as failed
_MAX_WAIT_S = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """When to retry and when to give up."""

    attempts: int = 6  # consecutive connections that may bring no progress
    wait: float = 1.0  # seconds before the second attempt; doubled before each further one
    timeout: float = 60.0  # seconds without data after which a connection counts as dropped


@dataclass(frozen=True)
class _Origin:
    """The file that a partial file belongs to, from the headers of the first response."""

    url: str
    validator: str  # value of If-Range; empty where the server sends none
    total: int  # bytes; 0 where unknown


def part_of(path: Path) -> Path:
    """The partial file of a download."""
    return path.with_name(f"{path.name}.part")


def fetch_from(
    url: str,
    headers: Mapping[str, str],
    archive: Archive,
    path: Path,
    report: Report,
    policy: RetryPolicy,
) -> None:
    """Download a file, resuming an earlier attempt; `path` appears when it is complete.

    Raises:
        DownloadError: the server refuses, sends a web page, or keeps dropping the connection;
            the partial file is kept for the next call.
        ChecksumError: size or checksum differ from what the publisher announced.
        DiskError: the file cannot be written.
    """
    transfer = _Transfer(url, headers, archive, path, report)
    for last in (False, True):
        resumed = _retry(transfer, policy)
        try:
            check(transfer.part, archive)
        except ChecksumError:
            transfer.discard()
            if last or not resumed:
                raise
            # Parts of two versions that the server did not distinguish may have been joined.
            log.warning("%s: the resumed file has another checksum; starting again", path)
        else:
            publish(transfer.part, path)
            transfer.note.unlink(missing_ok=True)
            return


def _retry(transfer: _Transfer, policy: RetryPolicy) -> bool:
    """Connect until the file is complete; return whether its parts are of several connections."""
    failures, furthest = 0, transfer.received()
    resumed = furthest > 0
    while True:
        try:
            transfer.connect(policy.timeout)
            return resumed
        except DroppedError as error:
            if isinstance(error, ChangedError):
                transfer.discard()
            received = transfer.received()
            resumed |= received > 0
            # Compared with the maximum: a server that repeats the same part makes no progress.
            failures = 0 if received >= furthest + _PROGRESS else failures + 1
            furthest = max(furthest, received)
            if failures >= policy.attempts:
                raise DownloadError(
                    f"{transfer.url}: gave up after {failures} attempts ({error}); "
                    f"{received} bytes are kept: run the same command again to resume"
                ) from error
            wait = max(error.wait, policy.wait * 2 ** max(0, failures - 1))
            log.warning("%s: %s; next attempt in %.0f s", transfer.url, error, wait)
            time.sleep(min(wait, _MAX_WAIT_S))


class _Transfer:
    """The partial file of a download, and the note beside it that names its origin."""

    def __init__(
        self, url: str, headers: Mapping[str, str], archive: Archive, path: Path, report: Report
    ) -> None:
        self.url = url
        self.headers = headers
        self.archive = archive
        self.part = part_of(path)
        self.note = path.with_name(f"{path.name}.part.json")
        self.report = report

    def received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def connect(self, timeout: float) -> None:
        """Request the missing bytes over one connection and append them."""
        origin = self._origin()
        start = self.received() if origin else 0
        headers = {"Accept-Encoding": "identity", **self.headers}
        if origin and start:
            if start == origin.total:
                return
            headers["Range"] = f"bytes={start}-"
            if origin.validator:
                headers["If-Range"] = origin.validator
        with response_to(self.url, headers, timeout) as response:
            if response.status_code == HTTPStatus.PARTIAL_CONTENT:
                total = origin.total if origin else 0
                header = response.headers.get("Content-Range", "")
                match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header)
                same = match and (not total or match[2] in (str(total), "*"))
                if not match or not same or int(match[1]) != start:
                    raise ChangedError("the server continues with another part or another file")
            else:
                start, total = 0, self._begin(response)
            received = self._append(response, start, total)
        if total and received != total:
            raise DroppedError(f"received {received} of {total} bytes")

    def _origin(self) -> _Origin | None:
        """Read the note; None where it is missing, damaged or of another address.

        With a published checksum, another address may continue the file: the whole is checked.
        """
        try:
            origin = _Origin(**json.loads(self.note.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        if origin.url != self.url and self.archive.checksum:
            return replace(origin, url=self.url, validator="")
        return origin if origin.url == self.url else None

    def _begin(self, response: requests.Response) -> int:
        """Write the note of a new download; return its size in bytes, 0 where unknown."""
        announced = self.archive.bytes
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else announced
        if announced and total != announced:
            raise ChecksumError(
                f"{self.url}: the server offers {total} bytes, {announced} were announced: "
                "the publisher replaced the file, and the dataset's card must be updated"
            )
        self.discard()  # first, so that no old part ever lies beside the new note
        validator = response.headers.get("ETag", "")
        if not validator or validator.startswith("W/"):  # If-Range forbids it (RFC 9110, 13.1.5)
            validator = response.headers.get("Last-Modified", "")
        write_json(self.note, asdict(_Origin(self.url, validator, total)))
        return total

    def _append(self, response: requests.Response, start: int, total: int) -> int:
        received = start
        try:
            with self.part.open("ab" if start else "wb") as file:
                # Not decoded: a .gz file must stay compressed.
                for block in response.raw.stream(_BLOCK, decode_content=False):
                    refuse_page(self.url, not received and is_page(block))
                    received += file.write(block)
                    self.report(received, total)
        except urllib3.exceptions.HTTPError as error:
            raise DroppedError(f"the connection broke off ({type(error).__name__})") from error
        except OSError as error:
            raise DiskError(
                f"{self.part}: cannot be written ({error}); make room and run the same command "
                "again to resume"
            ) from error
        return received
