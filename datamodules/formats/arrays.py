"""Images kept as rows of large arrays: NumPy files and HDF5 files, one row at a time.

Such files are larger than memory. They are opened anew for each row, which takes a fraction of
a millisecond, so that a call carries nothing but a path and a number to another process.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import DatasetNotFoundError, ImageError, LayoutError
from datamodules.core.records import Image, Record, Targets
from datamodules.formats.layout import relative


def open_npy(path: Path, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """A NumPy file mapped into memory, not read.

    Raises:
        DatasetNotFoundError: there is no such file.
        LayoutError: it is no array file, is cut short, or has another shape than the expected
            one, in which None stands for any length.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise LayoutError(f"{path}: not a readable .npy file ({error}); fetch it again") from error
    _check_shape(str(path), array.shape, shape)
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
    """The shape of a dataset in an HDF5 file, checked against what is expected.

    Raises:
        DatasetNotFoundError: there is no such file.
        LayoutError: it is no HDF5 file, has no such dataset, or one of another shape.
    """
    with _open_hdf5(path, key) as file:
        actual = tuple(int(length) for length in file[key].shape)
    _check_shape(f"{path}: '{key}'", actual, shape)
    return actual


def hdf5_rows(path: Path, key: str) -> NDArray[Any]:
    """A whole dataset of an HDF5 file; for labels, not for images."""
    with _open_hdf5(path, key) as file:
        return np.asarray(file[key][:])


def hdf5_image(path: Path, key: str, row: int) -> Image:
    """One image of an HDF5 file, see `as_image`."""
    with _open_hdf5(path, key) as file:
        return as_image(f"{path}#{row}", np.asarray(file[key][row]))


def as_image(where: str, pixels: NDArray[Any]) -> Image:
    """Pixels of any number type as uint8, without changing a value.

    Raises:
        ImageError: a value is not a whole number of 0 to 255.
    """
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


def _open_hdf5(path: Path, key: str) -> h5py.File:
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except OSError as error:
        raise LayoutError(f"{path}: not a readable HDF5 file ({error}); fetch it again") from error
    if key not in file:
        known = ", ".join(file) or "nothing"
        file.close()
        raise LayoutError(f"{path}: no dataset '{key}', expected it; the file holds {known}")
    return file


def _check_shape(where: str, shape: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    fits = len(shape) == len(expected) and all(
        length in (actual, None) for actual, length in zip(shape, expected, strict=True)
    )
    if not fits:
        lengths = ", ".join("n" if length is None else str(length) for length in expected)
        raise LayoutError(f"{where}: shape {shape}, expected ({lengths})")
