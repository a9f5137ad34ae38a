"""MATLAB files (.mat): arrays of numbers by name.

SciPy reads them too, but ends the process with a segmentation fault on damaged ones. Format: level
5 of "MAT-File Format" by The MathWorks; files of level 7.3 are HDF5 and refused by name.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from datamodules.core.errors import LayoutError
from datamodules.formats.cells import shown
from datamodules.formats.text_files import read_bytes

_START = 128  # bytes of the header; its last two tell the order of bytes
_HEADER = b"MATLAB 5.0 MAT-file, Platform: any, Created on: any day".ljust(116)
_ORDER = {b"IM": "<", b"MI": ">"}
_MATRIX, _COMPRESSED = 14, 15
_VALUES = {  # types of stored values
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_NUMBERS = range(6, 16)  # classes of arrays: doubles to 64-bit integers
_COMPLEX = 0x0800
_MOST_BYTES = 2**31  # of one array


def read_mat(path: Path, *names: str) -> list[NDArray[Any]]:
    """The arrays with these names, of real numbers, with at least two axes."""
    data = read_bytes(path.parent, path)
    if data.startswith(b"MATLAB 7.3"):
        raise LayoutError(f"{path}: of version 7.3; save it in MATLAB with the option '-v7'")
    try:
        order = _ORDER[data[_START - 2 : _START]]
        found = dict(_arrays(memoryview(data)[_START:], order, names))
    except (ValueError, KeyError, IndexError, OverflowError, struct.error, zlib.error) as error:
        reason = shown(error)
        raise LayoutError(f"{path}: not a readable .mat file ({reason}); fetch it again") from error
    for name in names:
        if name not in found:
            raise LayoutError(f"{path}: no array of numbers '{name}', expected it")
    return [found[name] for name in names]


def write_mat(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays compressed, as MATLAB does; the same arrays give the same bytes."""
    held = io.BytesIO()
    scipy.io.savemat(held, dict(arrays), do_compression=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_HEADER + held.getvalue()[len(_HEADER) :])  # the header holds the time


def _arrays(
    data: memoryview, order: str, names: tuple[str, ...]
) -> Iterator[tuple[str, NDArray[Any]]]:
    for kind, content in _elements(data, order):
        if kind == _COMPRESSED:
            yield from _arrays(_unpacked(content), order, names)
        elif kind == _MATRIX:
            (_, head), (_, sizes), (_, title), *values = _elements(content, order)
            flags = struct.unpack_from(f"{order}I", head)[0]
            name = bytes(title).decode("ascii")
            if name in names and flags & 0xFF in _NUMBERS and not flags & _COMPLEX:
                stored, numbers = values[0]
                array = np.frombuffer(numbers, f"{order}{_VALUES[stored]}")
                yield name, array.reshape(np.frombuffer(sizes, f"{order}i4"), order="F")


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of the elements that follow one another; small ones keep it in the tag."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(data):
            raise ValueError("it is cut short")
        yield kind, data[start : start + size]
        at = start + size if kind == _COMPRESSED else -(-(start + size) // 8) * 8


def _unpacked(packed: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    data = stream.decompress(packed, _MOST_BYTES)
    if not stream.eof:
        raise ValueError("a packed array is cut short or too large")
    return memoryview(data)
