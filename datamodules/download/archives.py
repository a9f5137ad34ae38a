"""What publishers say about their files: name, size, checksum."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from datamodules.core.errors import ChecksumError
from datamodules.core.records import Archive

log = logging.getLogger(__name__)

# Zenodo and other repositories that run InvenioRDM: <host>/records/<id>/files/<name>.
_FILE = re.compile(r"(https?://[^/]+)/(?:api/)?records?/(\d+)/files/([^/?#]+)")
_TIMEOUT_S = 20.0


def file_name(url: str) -> str:
    """Name of the file behind an address; Zenodo's `files/<name>/content` is understood."""
    parts = [part for part in PurePosixPath(urlsplit(url).path).parts if part != "/"]
    if parts and parts[-1] == "content":
        parts.pop()
    name = unquote(parts[-1]).replace("/", "_").lstrip(".") if parts else ""
    return name or "file"


def announced_bytes(archive: Archive) -> int:
    """Size of a file as published or as its server says; 0 where neither tells."""
    if archive.bytes:
        return archive.bytes
    headers = {"Accept-Encoding": "identity"}
    try:
        answer = requests.head(
            archive.url, headers=headers, allow_redirects=True, timeout=_TIMEOUT_S
        )
    except requests.RequestException:
        return 0  # only the estimate is lost: fetching will say what is wrong
    length = answer.headers.get("Content-Length", "")
    return int(length) if answer.ok and length.isdigit() else 0


def with_checksum(archive: Archive) -> Archive:
    """The archive with what its record says, where the card itself says nothing.

    Only a transfer is proved by that: the record could change together with its file, so that a
    checksum in the card is worth more. An address elsewhere, or a record that cannot be read,
    leaves the archive as it is.
    """
    matched = _FILE.match(archive.url)
    if archive.checksum or not matched:
        return archive
    host, record, name = matched[1], matched[2], unquote(matched[3])
    try:
        answer = requests.get(f"{host}/api/records/{record}", timeout=_TIMEOUT_S)
        answer.raise_for_status()
        files: list[dict[str, Any]] = answer.json()["files"]
        entry = next(file for file in files if file["key"] == name)
        checksum, size = str(entry["checksum"]), int(entry["size"])
    except (requests.RequestException, ValueError, KeyError, TypeError, StopIteration) as error:
        log.warning("%s: its record names no checksum (%s)", archive.url, type(error).__name__)
        return archive
    return replace(archive, checksum=checksum, bytes=archive.bytes or size)


ALGORITHMS = ("md5", "sha1", "sha256", "sha512")


def check(path: Path, archive: Archive) -> None:
    """Compare a file with the size and the checksum that its publisher announced.

    Raises:
        ChecksumError: they differ.
    """
    size = path.stat().st_size
    again = "delete it and fetch it again; if it stays so, the publisher replaced the file"
    if archive.bytes and size != archive.bytes:
        raise ChecksumError(f"{path}: {size} bytes, {archive.bytes} were announced; {again}")
    if not archive.checksum:
        return
    algorithm, _, expected = archive.checksum.partition(":")
    found = checksum(path, algorithm)
    if found != expected.lower():
        raise ChecksumError(f"{path}: {algorithm} is {found}, expected {expected}; {again}")


def checksum(path: Path, algorithm: str) -> str:
    """Checksum of a file in hexadecimal.

    Raises:
        ChecksumError: unknown algorithm.
    """
    if algorithm not in ALGORITHMS:
        raise ChecksumError(f"'{algorithm}': unknown checksum; write md5:..., sha256:...")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
