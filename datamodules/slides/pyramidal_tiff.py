"""Pyramids in TIFF: plain, OME, Aperio; read tile by tile with tifffile.

The levels are further pages, or SubIFDs of the first one. Only tiles that a region touches are
read, by position, so that threads and forked processes do not disturb each other.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from tifffile import PHOTOMETRIC, TiffFile, TiffPage, TiffWriter

from datamodules.core.errors import SlideError
from datamodules.core.records import Image
from datamodules.formats.tiff_files import MAGIC
from datamodules.slides.pyramid import DECODING, Level, unreadable

_PAGES = 64  # more are a stack, or directories in a circle
_SEGMENT_PX = 64_000_000  # decoded at once: larger strips would fill the memory
_COARSEST = 10.0  # µm/px; larger values come from a default of 72 to 300 dpi
_UNITS = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4}
_JPEG = (6, 7, 34892, 33007)


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in MAGIC


class PyramidalTiff:
    """A slide in a TIFF file; see `Pyramid`.

    Raises:
        SlideError: it is damaged, or of a kind that cannot be read in pieces.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        try:
            with TiffFile(path) as file:
                maker = next((m for m in ("ndpi", "scn", "bif", "philips") if _is(file, m)), "")
                if maker:
                    raise SlideError(
                        f"{path}: a slide in {maker.upper()} format needs OpenSlide; "
                        '`make install EXTRAS="offline-weights dev slides"`'
                    )
                self._pages = _levels(path, file)
                self.mpp = _mpp(file, self._pages[0])
                self._decoders = [page.decode for page in self._pages]  # made from the open file
                self._tables = [page.jpegtables for page in self._pages]
                self._segments = [self._placed(page, file.filehandle.size) for page in self._pages]
        except DECODING as error:
            raise unreadable(path, error) from error
        full = self._pages[0]
        self.levels = tuple(
            Level(p.imagewidth, p.imagelength, full.imagewidth / p.imagewidth) for p in self._pages
        )
        self._descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """Return a region; see `Pyramid`."""
        page = self._pages[level]
        high, wide = page.chunks[0], page.chunks[1]
        out = np.full((height, width, 3), 255, np.uint8)
        columns = range(max(0, x) // wide, -(-min(x + width, page.imagewidth) // wide))
        rows = range(max(0, y) // high, -(-min(y + height, page.imagelength) // high))
        for row in rows:
            for column in columns:
                piece = self._decode(level, row * -(-page.imagewidth // wide) + column)
                if piece is None:
                    continue
                left, top = column * wide, row * high
                right = min(left + piece.shape[1], page.imagewidth, x + width)
                bottom = min(top + piece.shape[0], page.imagelength, y + height)
                x0, y0 = max(left, x), max(top, y)
                out[y0 - y : bottom - y, x0 - x : right - x] = piece[
                    y0 - top : bottom - top, x0 - left : right - left, :3
                ]
        return out

    def _decode(self, level: int, number: int) -> NDArray[np.uint8] | None:
        """Return one tile or strip; None where the file leaves it out."""
        offset, count = (int(part[number]) for part in self._segments[level])
        if not count:
            return None
        page, options = self._pages[level], {}
        try:
            data = os.pread(self._descriptor, count, offset)
            if page.compression in _JPEG:
                options = {"jpegtables": self._tables[level], "jpegheader": page.jpegheader}
            decoded = self._decoders[level](data, number, **options)[0]
            return None if decoded is None else np.asarray(decoded[0], np.uint8)
        except DECODING as error:
            raise unreadable(self.path, error) from error

    def _placed(self, page: TiffPage, size: int) -> NDArray[np.int64]:
        """Return offsets and sizes of the tiles, which must lie in the file."""
        offsets, counts = (np.asarray(v, np.int64) for v in (page.dataoffsets, page.databytecounts))
        if not len(offsets) == len(counts) == math.prod(page.chunked):
            raise ValueError("tiles are missing in its tables")
        if (offsets + counts).max(initial=0) > size:
            raise ValueError("truncated: its tiles end behind the file")
        return np.stack([offsets, counts])


def _is(file: TiffFile, kind: str) -> bool:
    return bool(getattr(file, f"is_{kind}"))


def _levels(path: Path, file: TiffFile) -> list[TiffPage]:
    """Return the largest page and its smaller copies, the finest first."""
    pages: list[Any] = []
    for number in range(_PAGES):
        try:
            page = file.pages[number]
        except IndexError:
            break
        pages += [page, *(page.pages or ())]
    if not pages:
        raise ValueError("it holds no page")
    full = max(pages, key=lambda page: page.imagewidth * page.imagelength)
    kept = [page for page in pages if _is_copy(page, full)]
    kept.sort(key=lambda page: -page.imagewidth)
    for page in kept:
        kind = (page.bitspersample, page.samplesperpixel in (3, 4), page.planarconfig)
        if kind != (8, True, 1) or page.photometric not in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR):
            raise SlideError(f"{path}: not a picture in RGB of 8 bits; export it so")
        if math.prod(page.chunks) > 3 * _SEGMENT_PX:
            raise SlideError(
                f"{path}: {page.imagewidth}x{page.imagelength} px in one piece, which needs too "
                "much memory; save it in tiles, as in `vips tiffsave --tile --pyramid`"
            )
    return kept


def _is_copy(page: Any, full: Any) -> bool:
    """Whether a page shows the same as the full one; labels and macro photographs do not."""
    scale = page.imagewidth / full.imagewidth
    same = abs(page.imagelength - scale * full.imagelength) <= 1.5 + scale
    return page is full or (same and scale < 0.75 and page.is_tiled == full.is_tiled)


def _mpp(file: TiffFile, page: TiffPage) -> float:
    """Return the µm/px that the file states; 0 if it states none."""
    try:
        if file.is_ome and file.ome_metadata:
            for pixels in ElementTree.fromstring(file.ome_metadata).iter():
                if pixels.tag.endswith("}Pixels") and "PhysicalSizeX" in pixels.attrib:
                    unit = _UNITS[pixels.attrib.get("PhysicalSizeXUnit", "µm")]
                    return float(pixels.attrib["PhysicalSizeX"]) * unit
        stated = re.search(r"\bMPP\s*=\s*([0-9.]+)", page.description)
        if stated:
            return float(stated[1])
        top, bottom = page.tags.valueof("XResolution", (0, 1))
        micrometres = {2: 25_400.0, 3: 10_000.0}[int(page.tags.valueof("ResolutionUnit", 1))]
        mpp = micrometres * bottom / top
    except (LookupError, ValueError, TypeError, ZeroDivisionError, ElementTree.ParseError):
        return 0.0
    return mpp if mpp <= _COARSEST else 0.0


def write_labels(
    path: Path,
    size: tuple[int, int],
    side: int,
    level: Callable[[int], Iterator[NDArray[np.uint8]]],
    mpp: float,
    colours: NDArray[np.uint8],
) -> None:
    """Write class indices as a pyramidal TIFF with a palette, tile by tile.

    Args:
        path: the file.
        size: height and width in pixels.
        side: of a tile in pixels, a multiple of 16.
        level: yields the tiles of the level that is so many times coarser, in rows.
        mpp: µm/px.
        colours: the palette, (256, 3).
    """
    per_cm = 1e4 / mpp
    options: dict[str, Any] = {
        "dtype": np.uint8,
        "tile": (side, side),
        "compression": "zlib",
        "photometric": "palette",
        "colormap": colours.T.astype(np.uint16) * 257,
        "metadata": None,
        "resolutionunit": "CENTIMETER",
    }
    with TiffWriter(path, bigtiff=True) as file:
        step = 1
        while True:
            shape = tuple(-(-length // step) for length in size)
            place = (per_cm / step, per_cm / step)
            reduced = int(step > 1)
            file.write(level(step), shape=shape, resolution=place, subfiletype=reduced, **options)
            step *= 2
            if max(shape) <= 2 * side or side % step:
                break
