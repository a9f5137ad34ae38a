"""New HDF5 files on disks that may be full.

HDF5 ends the process with a segmentation fault when it closes a file whose last write failed, so
here it never learns of a failure: the file underneath keeps the error, which is raised once HDF5
has closed.
"""

import errno
import io
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py


class _KeepsErrors(io.FileIO):
    """A file whose write errors are kept instead of raised; what follows them is dropped."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        try:
            if self.error is None and (super().write(data) or 0) < size:
                raise OSError(errno.ENOSPC, "No space left on device", self.name)
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


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
