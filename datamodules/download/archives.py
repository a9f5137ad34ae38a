"""Facts that publishers state about their files: name, size and checksum."""

import hashlib
import logging
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests

from datamodules.core.errors import ChecksumError
from datamodules.core.records import Archive

log = logging.getLogger(__name__)

# Zenodo and other repositories that run InvenioRDM: <host>/records/<id>/files/<name>.
_FILE = re.compile(r"(https?://[^/]+)/(?:api/)?records?/(\d+)/files/([^/?#]+)")
_ALGORITHMS = ("md5", "sha1", "sha256", "sha384", "sha512")
_TIMEOUT_S = 20.0


def name_of(archive: Archive) -> str:
    """Return the file name of an archive, as stated or by its address."""
    return archive.name or file_name(archive.url)


def file_name(url: str) -> str:
    """Return the name of the file at an address, also of Zenodo's `files/<name>/content`.

    >>> file_name("https://zenodo.org/api/records/1/files/NCT%20CRC.zip/content")
    'NCT CRC.zip'
    """
    parts = [part for part in PurePosixPath(urlsplit(url).path).parts if part != "/"]
    if parts and parts[-1] == "content":
        parts.pop()
    name = unquote(parts[-1]).replace("/", "_").lstrip(".") if parts else ""
    return name or "file"


def announced_bytes(archive: Archive) -> int:
    """Return the size of a file from its card or its server; 0 where both are silent."""
    if archive.bytes or not archive.url:
        return archive.bytes
    headers = {"Accept-Encoding": "identity"}
    try:
        response = requests.head(
            archive.url, headers=headers, allow_redirects=True, timeout=_TIMEOUT_S
        )
    except requests.RequestException:
        return 0  # only the estimate is lost; the download will report the problem
    length = response.headers.get("Content-Length", "")
    return int(length) if response.ok and length.isdigit() else 0


def with_checksum(archive: Archive) -> Archive:
    """Add checksum and size from the repository's record where the card has no checksum.

    This only protects the transfer: record and file could change together, so a checksum in the
    card is worth more. An archive elsewhere, or with an unreadable record, is returned unchanged.
    """
    match = _FILE.match(archive.url)
    if archive.checksum or not match:
        return archive
    host, record, name = match[1], match[2], unquote(match[3])
    try:
        response = requests.get(f"{host}/api/records/{record}", timeout=_TIMEOUT_S)
        response.raise_for_status()
        entry = next(file for file in response.json()["files"] if file["key"] == name)
        checksum, size = str(entry["checksum"]), int(entry["size"])
    except (requests.RequestException, ValueError, KeyError, TypeError, StopIteration) as error:
        log.warning("%s: its record names no checksum (%s)", archive.url, type(error).__name__)
        return archive
    return replace(archive, checksum=checksum, bytes=archive.bytes or size)


def check(path: Path, archive: Archive) -> None:
    """Raise a ChecksumError unless a file has the announced size and checksum."""
    size = path.stat().st_size
    remedy = "delete it and fetch it again; if it stays so, the publisher replaced the file"
    if archive.bytes and size != archive.bytes:
        raise ChecksumError(f"{path}: {size} bytes, {archive.bytes} were announced; {remedy}")
    if not archive.checksum:
        return
    algorithm, _, expected = archive.checksum.partition(":")
    actual = checksum(path, algorithm)
    if actual != expected.lower():
        raise ChecksumError(f"{path}: {algorithm} is {actual}, expected {expected}; {remedy}")


def checksum(path: Path, algorithm: str) -> str:
    """Return the checksum of a file in hexadecimal; an unknown algorithm is a ChecksumError."""
    if algorithm not in _ALGORITHMS:
        raise ChecksumError(f"'{algorithm}': unknown checksum; write md5:..., sha256:...")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
