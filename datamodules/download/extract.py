"""Safe unpacking of archives from untrusted sources.

Every member is checked before it is written, and written as an ordinary new file: links, devices,
owners and modes in an archive have no effect.
"""

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO, Self, cast

from datamodules.core.disk_space import naming
from datamodules.core.errors import DownloadError

_BLOCK = 1 << 20
_MAX_HEADER = 1 << 22  # bytes; tarfile reads an extended header into memory in one piece
_TAR_SUFFIXES = ("", ".tar", ".gz", ".tgz")
_JUNK = {"__MACOSX", ".DS_Store", "Thumbs.db"}  # files that file managers leave behind
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile),
    *(zlib.error, lzma.LZMAError, EOFError, RecursionError),
)

# Name, announced size in bytes (0 where unknown) and content of a file in an archive.
Member = tuple[str, int, IO[bytes] | gzip.GzipFile]


@dataclass(frozen=True)
class Limits:
    """Largest content that an archive may unpack to.

    Published label arrays, mostly zeros, come near a ratio of 100; deflate can reach 1032.
    """

    bytes: int = 1 << 42  # of all members
    files: int = 5_000_000
    ratio: float = 200.0  # unpacked size over the archive's size
    free: int = 1 << 30  # bytes up to which the ratio is not checked


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> None:
    """Unpack a zip, tar, compressed tar or gzip file into an empty folder.

    It is unpacked when suffix and content agree; any other file (.npz, .xlsx) is copied.

    Raises:
        DownloadError: the archive is damaged, encrypted, too large or of an unsupported format,
            or has a member that is a link or a device or would be written outside the folder.
    """
    try:
        with ExitStack() as stack:
            members, announced = _open(archive, stack)
            free = shutil.disk_usage(target).free
            if announced > free:
                raise _RefusedError(
                    f"unpacks to {announced:,} bytes, {free:,} are free in {target}; make room or "
                    "set data.root to a larger disk"
                )
            _write(members, target, announced, archive.stat().st_size, limits or Limits())
    except _RefusedError as error:
        raise DownloadError(f"{archive}: {error}") from error
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; bz2 raises one without number for damage
        problem = f"damaged ({error}); delete it and fetch it again"
        raise DownloadError(f"{archive}: {problem}") from error
    except NotImplementedError as error:
        problem = f"uses a compression that is not supported ({error}); unpack it by hand"
        raise DownloadError(f"{archive}: {problem}") from error


def _open(archive: Path, stack: ExitStack) -> tuple[Iterator[Member], int]:
    """The members of a file by its suffix and content, and their announced total size."""
    suffix = archive.suffix.lower()
    file = stack.enter_context(archive.open("rb"))
    magic = file.read(4)
    file.seek(0)
    if suffix in ("", ".zip") and magic in (b"PK\x03\x04", b"PK\x05\x06"):
        packed = stack.enter_context(zipfile.ZipFile(file))
        return _zip_members(packed), sum(info.file_size for info in packed.infolist())
    if suffix in _TAR_SUFFIXES:
        zipped = magic.startswith(b"\x1f\x8b")
        stream = stack.enter_context(gzip.GzipFile(fileobj=file)) if zipped else file
        is_tar = stream.read(512)[257:262] == b"ustar"
        stream.seek(0)
        if is_tar:
            tar = tarfile.TarFile(fileobj=cast(IO[bytes], stream), tarinfo=_Header)
            return _tar_members(stack.enter_context(tar)), 0
        if zipped and suffix == ".gz" and not archive.stem.endswith(".tar"):
            return iter([(archive.stem, 0, stream)]), 0
    if suffix and suffix in (".zip", *_TAR_SUFFIXES):
        raise _RefusedError(f"is no {suffix} file by its content; delete it and fetch it again")
    if suffix in (".7z", ".rar", ".xz", ".bz2", ".zst"):
        raise _RefusedError(f"{suffix} files must be unpacked by hand")
    file.seek(0)
    size = archive.stat().st_size
    return iter([(archive.name, size, file)]), size


def _write(
    members: Iterator[Member], target: Path, announced: int, packed: int, limits: Limits
) -> None:
    def check_size(size: int) -> None:
        if size > min(limits.bytes, max(limits.free, limits.ratio * packed)):
            raise _RefusedError(
                f"unpacks to {size:,} bytes or more, {size / packed:.0f} times its own size; that "
                "is an archive bomb, or must be unpacked by hand"
            )

    check_size(announced)
    written = 0
    for count, (name, size, content) in enumerate(members, 1):
        if count > limits.files:
            raise _RefusedError(f"holds more than {limits.files:,} files")
        check_size(written + size)
        path = target / _safe_path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with naming(path), content, path.open("xb") as file:
                while block := content.read(_BLOCK):
                    written += len(block)
                    check_size(written)
                    file.write(block)
        except (FileExistsError, NotADirectoryError) as error:
            raise _RefusedError(f"member '{name}' occurs twice, as two different things") from error


def _safe_path(name: str) -> Path:
    """Return the relative path of a member, parsed by the stricter rules of Windows."""
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts or "\0" in name or not path.parts:
        raise _RefusedError(f"member '{name}' would be written outside its folder")
    return Path(*path.parts)


def _zip_members(file: zipfile.ZipFile) -> Iterator[Member]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _RefusedError(f"member '{info.filename}' is a link or a device")
        if info.flag_bits & 1:
            raise _RefusedError("is encrypted; unpack it by hand with its password")
        if not info.is_dir() and not _is_junk(info.filename):
            yield info.filename, info.file_size, file.open(info)


def _tar_members(tar: tarfile.TarFile) -> Iterator[Member]:
    # Not tarfile's own filters: they allow links and turn absolute names into relative ones.
    while info := tar.next():
        vars(tar)["members"].clear()  # tarfile keeps every header that it has read
        if info.size < 0:
            raise tarfile.ReadError(f"a member of {info.size} bytes")
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise _RefusedError(f"member '{info.name}' is a link or a device")
        content = tar.extractfile(info)
        if content and not _is_junk(info.name):
            yield info.name, info.size, content
    while cast(IO[bytes], tar.fileobj).read(_BLOCK):  # to the checksum at the end of a gzip file
        pass


class _Header(tarfile.TarInfo):
    """Header of a tar member. Extended headers, which are read into memory, must be small."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:  # tarfile would end there as if all were read
            raise tarfile.ReadError(f"a member's header: {error}") from error
        if header.size < 0 or (header.size > _MAX_HEADER and not header.isreg()):
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def _is_junk(name: str) -> bool:
    return not _JUNK.isdisjoint(PureWindowsPath(name).parts)


class _RefusedError(Exception):
    """The archive is refused, for the reason in the message."""
