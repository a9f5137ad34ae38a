"""Unpacking archives that nobody vouches for.

Names, kinds, sizes and numbers of the members are checked before anything of them is written,
and every member is written as an ordinary new file: no link, device, owner or mode of the
archive has any effect.
"""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from datamodules.core.errors import DownloadError

_BLOCK = 1 << 20
_LONGEST_HEADER = 1 << 22  # bytes; tarfile reads extended headers in one piece into memory
_GZIP = b"\x1f\x8b"
_TARS = ("", ".tar", ".gz", ".tgz")
_JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db")  # what file managers leave behind


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to; the free disk bounds it besides.

    Attributes:
        bytes: of all members.
        files: members.
        ratio: unpacked size over the archive's. Published label arrays, mostly zeros, come near
            100; deflate can reach 1032.
        free: bytes up to which the ratio does not matter.
    """

    bytes: int = 1 << 42
    files: int = 5_000_000
    ratio: float = 200.0
    free: int = 1 << 30


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    content: IO[bytes] | gzip.GzipFile


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> None:
    """Unpack a zip, tar, compressed tar or gzip file into a folder; copy any other file there.

    Args:
        archive: the file. It is unpacked when name and content agree; zip files under another
            name (.npz, .xlsx) are wanted as they are.
        target: an empty folder.
        limits: against archive bombs.

    Raises:
        DownloadError: damaged, of an unknown archive format, encrypted, too large, or with a
            member that is a link or a device or would lie outside the folder.
    """
    guard = _Guard(archive, target, limits or Limits())
    suffix = archive.suffix.lower()
    try:
        if suffix in ("", ".zip") and _magic(archive, b"PK\x03\x04", b"PK\x05\x06"):
            with zipfile.ZipFile(archive) as file:
                guard.announce([info.file_size for info in file.infolist()])
                guard.write(_zip_members(archive, file))
        elif suffix in _TARS and (stream := _tar_stream(archive)) is not None:
            with stream, tarfile.open(fileobj=_careful(stream), mode="r:") as tar:
                guard.write(_tar_members(archive, tar))
        elif suffix == ".gz" and not archive.stem.endswith(".tar") and _magic(archive, _GZIP):
            with gzip.open(archive) as plain:
                guard.write(iter([_Member(archive.stem, 0, plain)]))
        else:
            _refuse_archive_suffix(archive)
            guard.announce([archive.stat().st_size])
            shutil.copyfile(archive, target / archive.name)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DownloadError(
            f"{archive}: damaged ({error}); delete it and fetch it again"
        ) from error
    except NotImplementedError as error:
        raise DownloadError(
            f"{archive}: uses a compression that is not supported ({error}); unpack it by hand"
        ) from error


class _Guard:
    """Writes members below a folder and stops at whatever is unsafe."""

    def __init__(self, archive: Path, target: Path, limits: Limits) -> None:
        self.archive = archive
        self.target = target
        self.limits = limits
        self.packed = max(1, archive.stat().st_size)
        self.written = 0

    def announce(self, sizes: list[int]) -> None:
        """Check what the archive says about itself."""
        self._check_count(len(sizes))
        self._check_size(sum(sizes))
        free = shutil.disk_usage(self.target).free
        if sum(sizes) > free:
            raise DownloadError(
                f"{self.archive}: unpacks to {sum(sizes):,} bytes, {free:,} are free in "
                f"{self.target}; make room or set data.root to a larger disk"
            )

    def write(self, members: Iterator[_Member]) -> None:
        """Write all members."""
        for count, member in enumerate(members, 1):
            self._check_count(count)
            self._check_size(self.written + member.size)
            path = self.target / safe_path(self.archive, member.name)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    while block := member.content.read(_BLOCK):
                        self.written += len(block)
                        self._check_size(self.written)
                        file.write(block)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise DownloadError(
                    f"{self.archive}: member '{member.name}' occurs twice, as two different things"
                ) from error

    def _check_count(self, count: int) -> None:
        if count > self.limits.files:
            raise DownloadError(f"{self.archive}: holds more than {self.limits.files:,} files")

    def _check_size(self, size: int) -> None:
        ratio = size / self.packed
        if size > self.limits.bytes or (size > self.limits.free and ratio > self.limits.ratio):
            raise DownloadError(
                f"{self.archive}: unpacks to {size:,} bytes or more, {ratio:.0f} times its own "
                "size; that is an archive bomb, or must be unpacked by hand"
            )


def safe_path(archive: Path, name: str) -> PurePosixPath:
    """The member's path, if it lies below the folder into which it is unpacked.

    Raises:
        DownloadError: an absolute path, one that climbs out, or none at all.
    """
    parts = name.replace("\\", "/").split("/")
    wanted = [part for part in parts if part not in ("", ".")]
    absolute = name[:1] in ("/", "\\") or (bool(wanted) and wanted[0][1:2] == ":")
    if absolute or ".." in parts or "\0" in name or not wanted:
        raise DownloadError(f"{archive}: member '{name}' would be written outside its folder")
    return PurePosixPath(*wanted)


def _zip_members(archive: Path, file: zipfile.ZipFile) -> Iterator[_Member]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DownloadError(f"{archive}: member '{info.filename}' is a link or a device")
        if info.flag_bits & 1:
            raise DownloadError(f"{archive}: is encrypted; unpack it by hand with its password")
        if info.is_dir():
            safe_path(archive, info.filename)
        elif not _is_junk(info.filename):
            with file.open(info) as content:
                yield _Member(info.filename, info.file_size, content)


def _tar_members(archive: Path, tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        if info.isdir():
            if info.name not in (".", "./"):
                safe_path(archive, info.name)
            continue
        if not info.isreg() or info.issparse():
            raise DownloadError(f"{archive}: member '{info.name}' is a link or a device")
        if not _is_junk(info.name):
            content = tar.extractfile(info)
            if content is not None:
                yield _Member(info.name, info.size, content)
        vars(tar)["members"].clear()  # tarfile keeps every header that it has read


def _is_junk(name: str) -> bool:
    return any(part in _JUNK for part in name.replace("\\", "/").split("/"))


def _tar_stream(archive: Path) -> IO[bytes] | None:
    """The tar stream in a file, decompressed while it is read; None where there is none."""
    with ExitStack() as stack:
        if _magic(archive, _GZIP):
            stream = cast(IO[bytes], stack.enter_context(gzip.open(archive)))
        else:
            stream = stack.enter_context(archive.open("rb"))
        if stream.read(512)[257:262] != b"ustar":
            return None
        stream.seek(0)
        stack.pop_all()  # the caller closes it
        return stream


class _Careful:
    """A file for tarfile that refuses to read a huge header into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _careful(file: IO[bytes]) -> IO[bytes]:
    """The part of a file that tarfile needs, with bounded reads."""
    return cast(IO[bytes], _Careful(file))


def _magic(archive: Path, *magics: bytes) -> bool:
    with archive.open("rb") as file:
        return file.read(max(map(len, magics))).startswith(magics)


def _refuse_archive_suffix(archive: Path) -> None:
    suffix = archive.suffix.lower()
    if suffix == ".zip" or (suffix and suffix in _TARS):
        raise DownloadError(
            f"{archive}: is no {suffix} file by its content; delete it and fetch it again"
        )
    if suffix in (".7z", ".rar", ".xz", ".bz2", ".zst"):
        raise DownloadError(f"{archive}: {suffix} files must be unpacked by hand")
