"""TIFF, decoded by tifffile; `datamodules.formats.images` calls this.

A TIFF may hold stacks, thumbnails, pyramids and channels in many arrangements. The one page of
full resolution is read; a file that leaves open which one is meant is refused.
"""

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile, TiffPage

from datamodules.core.notes import warning
from datamodules.formats.raster import Raster, check_size, decoding, refused, upright

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a TIFF or BigTIFF begins
_MAX_PAGES = 64  # more are a stack, or directories in a circle
_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)
_JPEG = 7
# Samples of a pixel, without extra ones; YCbCr only where JPEG's decoder converts it.
_COLOURS: dict[int, int] = {
    **dict.fromkeys((PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.PALETTE), 1),
    **dict.fromkeys((PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR), 3),
}

log = logging.getLogger("tifffile")
log.setLevel(logging.ERROR)  # its warnings concern tags that are not used here
log.propagate = False


def size(path: Path) -> tuple[int, int]:
    """Height and width as displayed."""
    with _page(path) as page:
        height, width = page.imagelength, page.imagewidth
        return (width, height) if _orientation(page) >= 5 else (height, width)


def palette(path: Path) -> NDArray[np.uint8] | None:
    """The palette, uint8 (n, 3), of a file that has one."""
    with _page(path) as page:
        return _palette(page)


def load(path: Path) -> Raster:
    """Decode the page of full resolution."""
    with _page(path) as page:
        _check_kind(path, page)
        _check_segments(path, page)
        samples = page.asarray()
        if page.axes == "SYX":
            samples = np.moveaxis(samples, 0, -1)
        samples = samples.astype(np.uint8) if samples.dtype == bool else samples
        samples = samples[..., None] if samples.ndim == 2 else samples
        colours, orientation = _COLOURS[PHOTOMETRIC(page.photometric)], _orientation(page)
        pixels, alpha = samples[..., :colours], _alpha(path, page, samples[..., colours:])
        if alpha is not None and page.extrasamples[:1] == (1,):
            pixels = _unassociated(pixels, alpha)
        if orientation > 1:
            warning(path, "turned as its orientation tag says; masks and boxes must fit it so")
        return Raster(
            *(path, upright(pixels[..., 0] if colours == 1 else pixels, orientation)),
            bits=page.bitspersample,
            alpha=None if alpha is None else upright(alpha, orientation),
            palette=_palette(page),
            white_is_zero=page.photometric == PHOTOMETRIC.MINISWHITE,
            lossy=page.compression == _JPEG,
        )


class _Errors(logging.Handler):
    """What tifffile logs as an error in this thread, and would otherwise pass over."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.thread = threading.get_ident()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.messages.append(record.getMessage())


@contextmanager
def _page(path: Path) -> Iterator[TiffPage]:
    """The page of full resolution, within the open file."""
    if path.suffix.lower() not in (".tif", ".tiff", ".svs"):
        warning(path, "is TIFF, though its name ends otherwise")
    errors = _Errors()
    log.addHandler(errors)
    try:
        with decoding(path), TiffFile(path, _multifile=False) as tiff:
            page = _full_page(path, tiff)
            check_size(path, page.imagewidth, page.imagelength)
            if page.is_tiled:
                check_size(path, page.tilewidth, page.tilelength)
            if len(tiff.pages) == 1 and any(s.size > page.size for s in tiff.series):
                raise _stack(path, f"axes {tiff.series[0].axes} {tiff.series[0].shape}")
            yield page
            if errors.messages:
                raise ValueError(errors.messages[0])
    finally:
        log.removeHandler(errors)


def _full_page(path: Path, tiff: TiffFile) -> TiffPage:
    """The largest page; all others must be smaller copies of it, or be marked as such."""
    pages: list[Any] = []
    for number in range(_MAX_PAGES + 1):
        try:
            page = tiff.pages[number]
        except IndexError:
            break
        pages += [page, *(page.pages or ())]
    if not pages:
        raise ValueError("it holds no page")
    if len(pages) > _MAX_PAGES:
        raise _stack(path, f"more than {_MAX_PAGES} pages")
    full: TiffPage = max(pages, key=lambda page: page.imagewidth * page.imagelength)
    for page in pages:
        if page is not full and not _is_reduced(page, full):
            sizes = ", ".join(f"{p.imagewidth}x{p.imagelength}" for p in pages[:8])
            raise _stack(path, f"{len(pages)} pages ({sizes} px)")
    return full


def _is_reduced(page: TiffPage, full: TiffPage) -> bool:
    width, height = page.imagewidth, page.imagelength
    if 2 * width * height > full.imagewidth * full.imagelength or page.subfiletype & 4:
        return False
    scale = max(width / full.imagewidth, height / full.imagelength)
    same = max(abs(width - scale * full.imagewidth), abs(height - scale * full.imagelength)) <= 1.5
    return bool(page.subfiletype & 1) or same


def _stack(path: Path, what: str) -> Exception:
    problem = f"TIFF with {what}: which one is the image cannot be told"
    return refused(path, problem, "save one page in RGB")


def _check_kind(path: Path, page: TiffPage) -> None:
    """Refuse samples, colours and compressions that cannot be read rightly."""
    photometric, compression = page.photometric, page.compression
    bits, kind = page.bitspersample, getattr(page.dtype, "kind", "?")
    problem, extra = "", page.samplesperpixel - _COLOURS.get(photometric, 0)
    if compression not in (*_LOSSLESS, _JPEG):
        problem = f"compression {_name(COMPRESSION, compression)}"
    elif photometric not in _COLOURS or (photometric == PHOTOMETRIC.YCBCR and compression != _JPEG):
        problem = f"colours {_name(PHOTOMETRIC, photometric)}"
    elif bits not in (1, 2, 4, 8, 16, 32) or kind not in "bu":
        problem = f"samples of {bits} bits, type {page.dtype}"
    elif page.axes not in ("YX", "YXS", "SYX"):
        problem = f"axes {page.axes} {page.shape}"
    elif extra not in (0, 1) or (extra and compression == _JPEG):
        problem = f"{page.samplesperpixel} samples a pixel"
    if problem:
        raise refused(path, f"TIFF with {problem}", "save it as 8-bit RGB, LZW or uncompressed")


def _check_segments(path: Path, page: TiffPage) -> None:
    """Strips and tiles must lie in the file: tifffile fills those that do not with zeros."""
    file, offsets, counts = page.parent.filehandle, page.dataoffsets, page.databytecounts
    whole = len(offsets) == len(counts) == math.prod(page.chunked)
    if not whole or 0 in offsets or 0 in counts:
        raise refused(path, "TIFF with strips or tiles that are missing", "fetch the file again")
    if any(o + c > file.size for o, c in zip(offsets, counts, strict=True)):
        raise refused(path, "truncated: its strips end behind the file", "fetch the file again")
    for offset, count in zip(offsets, counts, strict=True) if page.compression == _JPEG else ():
        file.seek(offset)
        if b"\xff\xd9" not in file.read(count)[-16:]:
            raise refused(path, "truncated: JPEG data have no end", "fetch the file again")


def _alpha(path: Path, page: TiffPage, extra: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Opacity from the extra sample, if there is one."""
    if not extra.shape[-1] or page.bitspersample > 8:
        return None
    alpha = extra[..., 0].astype(np.uint8) * np.uint8(255 // (2**page.bitspersample - 1))
    if page.extrasamples[:1] in ((1,), (2,)):
        return np.asarray(alpha)
    if (alpha != 255).any():
        problem = "TIFF with an extra sample of unspecified meaning"
        raise refused(path, problem, "save it without, or mark it as alpha")
    return None


def _unassociated(pixels: NDArray[Any], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours that were stored multiplied by their opacity."""
    whole = np.maximum(alpha, 1)[..., None].astype(np.uint16)
    plain = np.minimum((pixels.astype(np.uint16) * 255 + whole // 2) // whole, 255)
    return np.asarray(plain, np.uint8)


def _palette(page: TiffPage) -> NDArray[np.uint8] | None:
    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    colours = np.asarray(page.colormap).reshape(3, -1).T  # some write 8 bits instead of 16
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)


def _orientation(page: TiffPage) -> int:
    value = page.tags.valueof(274, 1)
    return int(value) if value in range(1, 9) else 1


def _name(kind: Any, value: int) -> str:
    return str(kind(value).name) if value in list(kind) else str(value)
