"""HDF5 files on disks that may be full, and files that another process may replace.

HDF5 ends the process with a segmentation fault when it closes a file whose last write failed, so
here it never learns of a failure: the file underneath keeps the error, which is raised once HDF5
has closed. While it opens a file it looks at the name more than once, and fails where the file is
replaced or removed meanwhile; here it gets a file that is open already.
"""

import io
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py


class _KeepsErrors(io.FileIO):
    """A file whose write errors are kept instead of raised; what follows them is dropped."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self.error is None:  # the system writes at most 2 GiB in one call
                rest = rest[super().write(rest) or 0 :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


class OpenFile(io.RawIOBase):
    """An existing file to read, the same one also after its name was given to another.

    It reads by position, so that forked processes do not disturb each other.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._place = 0
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not block

    def state(self) -> tuple[int, int]:
        """Return size and time of change."""
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the position of the next read."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.state()[0]}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """Read at the position; return the number of bytes, 0 at the end."""
        count = os.preadv(self._descriptor, [buffer], self._place)
        self._place += count
        return count

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class NewFile(h5py.File):  # type: ignore[misc]
    """An HDF5 file to write; leaving its `with` block raises the first error of the disk.

    Args:
        path: created or overwritten.

    Raises:
        OSError: on leaving the block or by `check`, if the disk is full or refuses writing.

    >>> import tempfile
    >>> with NewFile(Path(tempfile.mkdtemp()) / "x.h5") as file:
    ...     file["numbers"] = [1, 2]
    """

    def __init__(self, path: Path) -> None:
        self._disk = _KeepsErrors(path, "w+b")
        super().__init__(self._disk, "w", libver="latest")

    def check(self) -> None:
        """Raise the first error of the disk, to stop before more is written in vain."""
        if self._disk.error is not None:
            raise OSError(self._disk.error.errno, self._disk.error.strerror, self._disk.name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._disk.close()
        if error is None:
            self.check()
