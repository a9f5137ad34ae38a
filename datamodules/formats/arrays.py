"""Images kept as rows of large arrays: NumPy files and HDF5 files, one row at a time.

Such files are larger than memory. They are opened anew for each row, which takes a fraction of
a millisecond, so that a call carries nothing but a path and a number to another process.
"""

import math
import struct
import sys
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.core import notes
from datamodules.core.errors import DatasetNotFoundError, ImageError, LayoutError
from datamodules.core.records import Image, Record, Targets
from datamodules.formats.cells import shown
from datamodules.formats.layout import relative

_UNREADABLE = (  # what NumPy and HDF5 raise for damaged files
    *(OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, SyntaxError, MemoryError),
    *(OverflowError, tokenize.TokenError, struct.error),
)


def open_npy(path: Path, shape: tuple[int | None, ...], texts: bool = False) -> NDArray[Any]:
    """A NumPy file of numbers or texts mapped into memory; None in its shape is any length.

    Objects are refused, and a file that is shorter or longer than its header states.
    """
    try:
        array = np.lib.format.open_memmap(path, "r")  # refuses objects and archives
        end = array.offset + array.nbytes
        if end < path.stat().st_size:
            raise ValueError(f"longer than the {end} bytes that its header states")
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except _UNREADABLE as error:
        reason = shown(error)
        raise LayoutError(f"{path}: not a readable .npy file ({reason}); fetch it again") from error
    _check_shape(str(path), array.shape, shape)
    _check_type(str(path), array.dtype, texts)
    if texts and array.dtype.kind == "U":
        codes = np.asarray(array).view(f"{array.dtype.str[0]}u4")
        if codes.size and int(codes.max()) > sys.maxunicode:
            raise LayoutError(f"{path}: holds what is no text; fetch it again")
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    return np.asarray(array)


def npy_image(path: Path, row: int) -> Image:
    """One image of a .npy file, see `as_image`."""
    return as_image(f"{path}#{row}", np.array(open_npy(path, (None, None, None, 3))[row]))


def npy_record(
    root: Path, path: Path, row: int, targets: Targets, split: str = "train", group: str = ""
) -> Record:
    """The record of one image of a .npy file; without a `group` it is its own group."""
    source = f"{relative(root, path)}#{row}"
    return Record(source, partial(npy_image, path, row), targets, split, group or source)


def hdf5_shape(path: Path, key: str, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of a dataset of numbers in an HDF5 file, checked against what is expected."""
    with _hdf5(path, key) as data:
        _check_shape(f"{path}: '{key}'", data.shape, shape)
        # Rows that were never written would be read as zeros.
        chunks = math.prod(
            -(-n // c) for n, c in zip(data.shape, data.chunks or data.shape, strict=True)
        )
        whole = data.id.get_num_chunks() == chunks if data.chunks else data.id.get_storage_size()
        if data.size and not whole:
            raise LayoutError(f"{path}: parts of '{key}' were never written; fetch it again")
        return tuple(int(length) for length in data.shape)


def hdf5_rows(path: Path, key: str, count: int) -> NDArray[Any]:
    """A whole dataset of exactly one value for each of `count` rows; not for images."""
    shape = hdf5_shape(path, key, ())
    if math.prod(shape) != count or shape[0] != count:
        raise LayoutError(f"{path.name}: {shape[0]} rows in shape {shape} for {count} images")
    with _hdf5(path, key) as data:
        return np.asarray(data[:]).ravel()


def hdf5_image(path: Path, key: str, row: int) -> Image:
    """One image of an HDF5 file, see `as_image`."""
    with _hdf5(path, key) as data:
        return as_image(f"{path}#{row}", np.asarray(data[row]))


def as_image(where: str, pixels: NDArray[Any]) -> Image:
    """Pixels of any number type as uint8; all must be whole numbers of 0 to 255."""
    if pixels.dtype == np.uint8:
        return pixels
    with np.errstate(invalid="ignore"):  # the comparison below detects what does not fit
        whole = pixels.astype(np.uint8)
    if not np.array_equal(whole, pixels):
        raise ImageError(
            f"{where}: pixels are {pixels.dtype} between {pixels.min()} and {pixels.max()}, "
            "expected whole numbers from 0 to 255"
        )
    return whole


def whole_numbers(where: str, values: NDArray[Any]) -> NDArray[np.int64]:
    """Labels or instance ids of any number type; all must be whole numbers from 0."""
    values = np.asarray(values)
    with np.errstate(invalid="ignore"):  # the comparison below detects what does not fit
        whole = values.astype(np.int64)
    if not np.array_equal(whole, values) or (whole.size and whole.min() < 0):
        wrong = values[(whole != values) | (whole < 0)].ravel()[0]
        raise LayoutError(f"{where}: holds {wrong}, expected whole numbers from 0")
    return whole


@contextmanager
def _hdf5(path: Path, key: str) -> Iterator[h5py.Dataset]:
    """A dataset of numbers that lies in the file itself, which is closed afterwards.

    Links, external files and virtual datasets could bring in any file of this machine.
    """
    try:
        with h5py.File(path, "r") as file:
            if key not in file:
                known = shown(", ".join(file) or "nothing")
                raise LayoutError(f"{path}: no dataset '{key}', expected it; it holds {known}")
            if path.stat().st_size > _stated_end(path):
                notes.warning(path.name, "longer than its header states")
            link = file.get(key, getlink=True)
            data = file[key] if isinstance(link, h5py.HardLink) else None
            if not isinstance(data, h5py.Dataset):
                raise LayoutError(f"{path}: '{key}' is a link or group, expected a dataset")
            if data.external or data.is_virtual:
                raise LayoutError(f"{path}: '{key}' keeps its values in other files; refused")
            _check_type(f"{path}: '{key}'", data.dtype)
            yield data
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except _UNREADABLE as error:
        reason = shown(error)
        raise LayoutError(f"{path}: not a readable HDF5 file ({reason}); fetch it again") from error


def _stated_end(path: Path) -> int:
    """The end of an HDF5 file by its header (format specification, superblock versions 0 to 3)."""
    with path.open("rb") as file:
        head = file.read(64)
    at = {0: 40, 1: 44}.get(head[8], 28)
    return int.from_bytes(head[at : at + 8], "little")


def _check_type(where: str, kind: np.dtype[Any], texts: bool = False) -> None:
    if kind.kind not in ("US" if texts else "biuf") or kind.names:
        raise LayoutError(f"{where}: type {kind}, expected {'texts' if texts else 'numbers'}")


def _check_shape(where: str, shape: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    """Compare a shape; an empty expectation fits anything with rows."""
    fits = len(shape) == len(expected) and all(
        length in (actual, None) for actual, length in zip(shape, expected, strict=True)
    )
    if not (fits if expected else shape):
        lengths = ", ".join("n" if length is None else str(length) for length in expected)
        raise LayoutError(f"{where}: shape {shape}, expected ({lengths})")
