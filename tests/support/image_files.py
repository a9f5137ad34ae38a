# ruff: noqa: E501 (the table has one row per kind)
"""Image files of every kind, with what they must be read as: the rows of docs/image_formats.md."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import tifffile

RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
GREY = RNG.integers(0, 256, (5, 7)).astype(np.uint8)
IDS = RNG.integers(0, 4, (5, 7)).astype(np.uint8)
IDS[0, :4] = range(4)
BLACK_WHITE = (IDS > 1).astype(np.uint8)
SMOOTH = np.stack(np.meshgrid(np.arange(32) * 6, np.arange(24) * 8), axis=2).astype(np.uint8)
SMOOTH = np.concatenate([SMOOTH, 200 - SMOOTH[..., :1]], axis=2)
LARGE = cv2.resize(SMOOTH, (64, 48), interpolation=cv2.INTER_NEAREST)
ALPHA = np.where(IDS > 0, 255, 0).astype(np.uint8)
COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [9, 9, 9]], np.uint8)
_ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of file: how to write one, and what comes of it.

    `image` and `mask` are the pixels, or words of the refusal; `how` says in words how images, and
    `mask_how` how masks are read.
    """

    what: str
    name: str
    write: Callable[[Path], Any]
    image: np.ndarray | str
    mask: np.ndarray | str
    how: str = "as stored"
    mask_how: str = "values as stored"
    within: int = 0

    def row(self) -> str:
        image = f"refused: {self.image}" if isinstance(self.image, str) else self.how
        mask = f"refused: {self.mask}" if isinstance(self.mask, str) else self.mask_how
        return f"| {self.what} | {image} | {mask} |"


def pil(pixels: np.ndarray, **options: Any) -> Callable[[Path], None]:
    return lambda path: PIL.Image.fromarray(pixels).save(path, **options)


def bilevel(path: Path, **options: Any) -> None:
    PIL.Image.fromarray(BLACK_WHITE * 255).convert("1").save(path, **options)


def paletted(path: Path, indices: np.ndarray, palette: np.ndarray, **options: Any) -> None:
    image = PIL.Image.fromarray(indices, "L").copy()
    image = PIL.Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(path, **options)


def png(path: Path, samples: np.ndarray, depth: int, interlaced: bool = False) -> None:
    """A grey PNG of few bits or in seven passes, which Pillow does not write."""
    height, width = samples.shape
    data = b""
    for y, x, down, right in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
        for line in samples[y::down, x::right]:
            bits = np.unpackbits(line[:, None], axis=1)[:, 8 - depth :]
            data += b"\0" + np.packbits(bits).tobytes() if len(line) else b""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def huge_png(path: Path, width: int, height: int) -> None:
    """The header of a PNG of any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"\0"))


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def raw(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data)


def oriented(pixels: np.ndarray, orientation: int, **options: Any) -> Callable[[Path], None]:
    exif = PIL.Image.Exif()
    exif[274] = orientation
    return pil(pixels, exif=exif, **options)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


def tiff(pixels: np.ndarray, **options: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **options)


def pages(*arrays: np.ndarray, **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tifffile.TiffWriter(path) as file:
            for array in arrays:
                file.write(array, metadata=None, **options)

    return write


def pyramid(path: Path, ome: bool) -> None:
    with tifffile.TiffWriter(path, ome=ome) as file:
        file.write(LARGE, photometric="rgb", subifds=1, tile=(16, 16))
        file.write(SMOOTH, photometric="rgb", subfiletype=1, tile=(16, 16))


def without_strip(path: Path) -> None:
    tifffile.imwrite(path, SMOOTH, photometric="rgb", rowsperstrip=8, compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        counts = file.pages[0].tags["StripByteCounts"]
        counts.overwrite([counts.value[0], 0, *counts.value[2:]])


def cut(write: Callable[[Path], None], share: float) -> Callable[[Path], None]:
    def shorter(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return shorter


def over_white(pixels: np.ndarray) -> np.ndarray:
    return np.where(ALPHA[..., None] > 0, pixels, 255)


def grey3(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(pixels, np.uint8)[..., None], 3, axis=2)


_JPEG = encoded(SMOOTH, "JPEG", quality=95)
_LOSSY = "is compressed with loss"
_TRANSPARENT = "mask has transparent pixels"
_COLOURED = "mask has colours"
_DEPTH = "16 bits a channel"
_DAMAGED = "not a readable image"
_WHITE_FIRST = np.array([[255] * 3, [0] * 3], np.uint8)
_SPREAD = np.array([[0] * 3, [85] * 3, [170] * 3, [255] * 3], np.uint8)
_LATE_BLACK = COLOURS[[1, 0, 2, 3]]
_SCALED = "scaled to 0 to 255"
_PALETTE = {"photometric": "palette", "colormap": COLOURS.T.astype(np.uint16) * 257}
_WHOLE_MAP = np.zeros((3, 256), np.uint16)
_WHOLE_MAP[:, :4] = _PALETTE["colormap"]
_ASSOCIATED = np.dstack([RGB * (ALPHA > 0)[..., None].astype(np.uint8), ALPHA])

KINDS = (
    Kind("PNG, 8-bit RGB", "a.png", pil(RGB), RGB, _COLOURED),
    Kind("PNG, 8-bit RGB of equal channels", "a.png", pil(grey3(IDS)), grey3(IDS), IDS, mask_how="one channel"),
    Kind("PNG, 8-bit grey", "a.png", pil(IDS), grey3(IDS), IDS),
    Kind("PNG, grey of 4 bits", "a.png", partial(png, samples=IDS, depth=4), grey3(IDS * 17), IDS, _SCALED),
    Kind("PNG, grey of 2 bits", "a.png", partial(png, samples=IDS, depth=2), grey3(IDS * 85), IDS, _SCALED),
    Kind("PNG, 1 bit", "a.png", bilevel, grey3(BLACK_WHITE * 255), BLACK_WHITE, "black and white", "black 0, white 1"),
    Kind("PNG, interlaced", "a.png", partial(png, samples=GREY, depth=8, interlaced=True), grey3(GREY), GREY),
    Kind("PNG, 16-bit grey", "a.png", pil(IDS.astype(np.uint16) + 255), _DEPTH, "mask holds the value"),
    Kind("PNG, 16-bit grey of small values", "a.png", pil(IDS.astype(np.uint16)), _DEPTH, IDS),
    Kind("PNG, 16-bit RGB", "a.png", lambda p: cv2.imwrite(str(p), RGB.astype(np.uint16) * 257), _DEPTH, _DEPTH),
    Kind("PNG, RGBA", "a.png", pil(np.dstack([RGB, ALPHA])), over_white(RGB), _TRANSPARENT, "transparent over white"),
    Kind("PNG, RGBA, opaque", "a.png", pil(np.dstack([grey3(IDS), ALPHA | 255])), grey3(IDS), IDS),
    Kind("PNG, grey with alpha", "a.png", pil(np.dstack([GREY, ALPHA])), over_white(grey3(GREY)), _TRANSPARENT, "transparent over white"),
    Kind("PNG, nothing but transparent pixels over a picture", "a.png", pil(np.dstack([RGB, ALPHA * 0])), "every pixel is transparent", _TRANSPARENT),
    Kind("PNG, RGB with a transparent colour", "a.png", pil(grey3(IDS), transparency=(0, 0, 0)), over_white(grey3(IDS)), _TRANSPARENT, "transparent over white"),
    Kind("PNG, palette of colours", "a.png", partial(paletted, indices=IDS, palette=COLOURS), COLOURS[IDS], IDS, "its colours", "indices; one palette in all masks"),
    Kind("PNG, palette with transparency", "a.png", partial(paletted, indices=IDS, palette=COLOURS, transparency=b"\0"), over_white(COLOURS[IDS]), IDS, "transparent over white", "indices"),
    Kind("PNG, palette of black and white, white first", "a.png", partial(paletted, indices=1 - BLACK_WHITE, palette=_WHITE_FIRST), grey3(BLACK_WHITE * 255), BLACK_WHITE, "its colours", "black 0, white 1"),
    Kind("PNG, palette of greys that differ from their indices", "a.png", partial(paletted, indices=IDS, palette=_SPREAD), grey3(IDS * 85), "mask has a palette of greys", "its colours"),
    Kind("PNG, palette in which black is not first", "a.png", partial(paletted, indices=IDS, palette=_LATE_BLACK), _LATE_BLACK[IDS], "black is not the first colour", "its colours"),
    Kind("PNG, EXIF orientation 6", "a.png", oriented(IDS, 6), grey3(np.rot90(IDS, -1)), np.rot90(IDS, -1), "turned", "turned"),
    Kind("PNG, animated", "a.png", pil(RGB, save_all=True, append_images=[PIL.Image.fromarray(255 - RGB)]), "animation of 2 pictures", "animation of 2 pictures"),
    Kind("PNG, cut short", "a.png", raw(encoded(LARGE, "PNG")[:-40]), _DAMAGED, _DAMAGED),
    Kind("PNG, a bit flipped", "a.png", raw(flipped(encoded(RGB, "PNG"), 70)), _DAMAGED, _DAMAGED),
    Kind("JPEG, RGB", "a.jpg", raw(_JPEG), SMOOTH, _LOSSY, "as decoded", within=8),
    Kind("JPEG, grey", "a.jpg", raw(encoded(SMOOTH[..., 0].copy(), "JPEG", quality=95)), grey3(SMOOTH[..., 0]), _LOSSY, "as decoded", within=8),
    Kind("JPEG, progressive", "a.jpg", raw(encoded(SMOOTH, "JPEG", quality=95, progressive=True)), SMOOTH, _LOSSY, "as decoded", within=8),
    Kind("JPEG, CMYK", "a.jpg", lambda p: PIL.Image.fromarray(SMOOTH).convert("CMYK").save(p), "JPEG of mode CMYK", "JPEG of mode CMYK"),
    Kind("JPEG, EXIF orientation 6", "a.jpg", oriented(SMOOTH, 6, quality=95), np.rot90(SMOOTH, -1), _LOSSY, "turned", within=8),
    Kind("JPEG, cut short", "a.jpg", raw(_JPEG[: len(_JPEG) // 2]), _DAMAGED, _DAMAGED),
    Kind("JPEG, its end overwritten with zeros", "a.jpg", raw(_JPEG[:-2] + bytes(2)), "the JPEG has no end", "the JPEG has no end"),
    Kind("JPEG, named .png", "a.png", raw(_JPEG), SMOOTH, _LOSSY, "by its content, noted", within=8),
    Kind("PNG, named .tif", "a.tif", raw(encoded(IDS, "PNG")), grey3(IDS), IDS, "by its content, noted", "by its content, noted"),
    Kind("BMP, 24 bits", "a.bmp", pil(RGB), RGB, _COLOURED),
    Kind("BMP, 8-bit grey", "a.bmp", pil(IDS), grey3(IDS), IDS),
    Kind("BMP, palette of colours", "a.bmp", partial(paletted, indices=IDS, palette=COLOURS), COLOURS[IDS], IDS, "its colours", "indices"),
    Kind("BMP, 1 bit", "a.bmp", bilevel, grey3(BLACK_WHITE * 255), BLACK_WHITE, "black and white", "black 0, white 1"),
    Kind("BMP, cut short", "a.bmp", cut(pil(RGB), 0.7), _DAMAGED, _DAMAGED),
    Kind("WebP, lossless", "a.webp", pil(RGB, lossless=True), RGB, _COLOURED),
    Kind("WebP, lossy", "a.webp", raw(encoded(SMOOTH, "WEBP", quality=95)), SMOOTH, _LOSSY, "as decoded", within=16),
    Kind("WebP, animated", "a.webp", pil(RGB, save_all=True, append_images=[PIL.Image.fromarray(255 - RGB)]), "animation of 2 pictures", "animation of 2 pictures"),
    Kind("GIF, one picture", "a.gif", partial(paletted, indices=IDS, palette=COLOURS), COLOURS[IDS], IDS, "its colours", "indices"),
    Kind("GIF, animated", "a.gif", pil(IDS, save_all=True, append_images=[PIL.Image.fromarray(IDS[::-1].copy())]), "animation of 2 pictures", "animation of 2 pictures"),
    Kind("TIFF, 8-bit RGB", "a.tif", tiff(RGB, photometric="rgb"), RGB, _COLOURED),
    Kind("TIFF, big-endian BigTIFF", "a.tif", tiff(RGB, photometric="rgb", byteorder=">", bigtiff=True), RGB, _COLOURED),
    Kind("TIFF, LZW with predictor", "a.tif", tiff(RGB, photometric="rgb", compression="lzw", predictor=True), RGB, _COLOURED),
    Kind("TIFF, PackBits", "a.tif", tiff(RGB, photometric="rgb", compression="packbits"), RGB, _COLOURED),
    Kind("TIFF, deflate, in tiles", "a.tif", tiff(LARGE, photometric="rgb", compression="zlib", tile=(16, 32)), LARGE, _COLOURED),
    Kind("TIFF, planes one after another", "a.tif", tiff(np.moveaxis(RGB, -1, 0).copy(), photometric="rgb", planarconfig="separate"), RGB, _COLOURED),
    Kind("TIFF, JPEG in YCbCr, in tiles", "a.tif", tiff(LARGE, photometric="rgb", compression="jpeg", compressionargs={"level": 95}, tile=(16, 16)), LARGE, _LOSSY, "as decoded", within=10),
    Kind("TIFF, JPEG in RGB", "a.tif", pil(SMOOTH, compression="jpeg", quality=95), SMOOTH, _LOSSY, "as decoded", within=10),
    Kind("TIFF, YCbCr without JPEG", "a.tif", tiff(RGB, photometric="ycbcr"), "TIFF with colours YCBCR", "TIFF with colours YCBCR"),
    Kind("TIFF, CMYK", "a.tif", tiff(np.dstack([RGB, GREY]), photometric="separated"), "TIFF with colours SEPARATED", "TIFF with colours SEPARATED"),
    Kind("TIFF, CIELAB", "a.tif", tiff(RGB, photometric="cielab"), "TIFF with colours CIELAB", "TIFF with colours CIELAB"),
    Kind("TIFF, 16-bit RGB", "a.tif", tiff(RGB.astype(np.uint16), photometric="rgb"), _DEPTH, _COLOURED),
    Kind("TIFF, 16-bit grey", "a.tif", tiff(IDS.astype(np.uint16)), _DEPTH, IDS),
    Kind("TIFF, 32-bit numbers of instances", "a.tif", tiff(IDS.astype(np.uint32) * 1000), "32 bits a channel", "mask holds the value 3000"),
    Kind("TIFF, fractions", "a.tif", tiff(IDS.astype(np.float32)), "TIFF with samples of 32 bits, type float32", "TIFF with samples of 32 bits, type float32"),
    Kind("TIFF, signed", "a.tif", tiff(IDS.astype(np.int16)), "TIFF with samples of 16 bits, type int16", "TIFF with samples of 16 bits, type int16"),
    Kind("TIFF, 8-bit grey", "a.tif", tiff(IDS), grey3(IDS), IDS),
    Kind("TIFF, 8-bit grey, MinIsWhite", "a.tif", tiff(GREY, photometric="miniswhite"), grey3(255 - GREY), "mask counts from white", "white is 0: inverted"),
    Kind("TIFF, 1 bit", "a.tif", tiff(BLACK_WHITE, bitspersample=1), grey3(BLACK_WHITE * 255), BLACK_WHITE, "black and white", "black 0, white 1"),
    Kind("TIFF, 1 bit, MinIsWhite", "a.tif", tiff(1 - BLACK_WHITE, bitspersample=1, photometric="miniswhite"), grey3(BLACK_WHITE * 255), BLACK_WHITE, "black and white", "black 0, white 1"),
    Kind("TIFF, palette of colours", "a.tif", tiff(IDS, photometric="palette", colormap=_WHOLE_MAP), COLOURS[IDS], IDS, "its colours", "indices; one palette in all masks"),
    Kind("TIFF, RGB with alpha", "a.tif", tiff(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=["unassalpha"]), over_white(RGB), _TRANSPARENT, "transparent over white"),
    Kind("TIFF, RGB multiplied by its alpha", "a.tif", tiff(_ASSOCIATED, photometric="rgb", extrasamples=["assocalpha"]), over_white(RGB), _TRANSPARENT, "transparent over white"),
    Kind("TIFF, RGB with a fourth sample of no stated meaning", "a.tif", tiff(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=["unspecified"]), "extra sample of unspecified meaning", "extra sample of unspecified meaning"),
    Kind("TIFF, five samples", "a.tif", tiff(np.dstack([RGB, ALPHA, ALPHA]), photometric="rgb"), "TIFF with 5 samples a pixel", "TIFF with 5 samples a pixel"),
    Kind("TIFF, three grey samples", "a.tif", tiff(RGB, photometric="minisblack", planarconfig="contig"), "TIFF with 3 samples a pixel", "TIFF with 3 samples a pixel"),
    Kind("TIFF, orientation 3", "a.tif", tiff(IDS, extratags=[(274, 3, 1, 3, True)]), grey3(IDS[::-1, ::-1]), IDS[::-1, ::-1], "turned", "turned"),
    Kind("TIFF, ImageJ stack of three grey pages", "a.tif", tiff(np.moveaxis(RGB, -1, 0).copy(), imagej=True, metadata={"axes": "CYX"}), "TIFF with 3 pages", "TIFF with 3 pages"),
    Kind("TIFF, several planes behind one page", "a.tif", tiff(np.stack([GREY] * 5), metadata={"axes": "ZYX"}, volumetric=False, contiguous=True, truncate=True), "TIFF with axes", "TIFF with axes"),
    Kind("TIFF, OME of three channels", "a.ome.tif", tiff(np.moveaxis(RGB, -1, 0).copy(), ome=True, photometric="minisblack", metadata={"axes": "CYX"}), "TIFF with 3 pages", "TIFF with 3 pages"),
    Kind("TIFF, OME pyramid", "a.ome.tif", partial(pyramid, ome=True), LARGE, _COLOURED, "full resolution"),
    Kind("TIFF, pyramid in SubIFDs", "a.tif", partial(pyramid, ome=False), LARGE, _COLOURED, "full resolution"),
    Kind("TIFF, thumbnail on the first page", "a.tif", pages(SMOOTH, LARGE, photometric="rgb"), LARGE, _COLOURED, "full resolution"),
    Kind("TIFF, pages of different pictures", "a.tif", pages(LARGE, SMOOTH[:, :9].copy(), photometric="rgb"), "TIFF with 2 pages", "TIFF with 2 pages"),
    Kind("TIFF, cut short", "a.tif", cut(tiff(LARGE, photometric="rgb"), 0.6), "truncated", "truncated"),
    Kind("TIFF, a strip missing", "a.tif", without_strip, "strips or tiles that are missing", "strips or tiles that are missing"),
    Kind("no byte", "a.png", raw(b""), "is empty", "is empty"),
    Kind("another file, named .png", "a.png", raw(b"<html>not found</html>"), _DAMAGED, _DAMAGED),
    Kind("more than 400 megapixels", "a.png", partial(huge_png, width=20_001, height=20_000), "more than 400 megapixels", "more than 400 megapixels"),
    Kind("one row", "a.png", pil(RGB[:1]), RGB[:1], _COLOURED),
    Kind("one column", "a.tif", tiff(IDS[:, :1]), grey3(IDS[:, :1]), IDS[:, :1]),
)  # fmt: skip
