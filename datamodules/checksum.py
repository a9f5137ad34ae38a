"""Sizes and checksums of fetched files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from datamodules.base import Archive
from datamodules.errors import ChecksumError

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
