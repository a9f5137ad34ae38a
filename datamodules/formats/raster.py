"""The pixels of an image file as they are stored, and what they mean as image or as mask.

The readers of single formats hand out a `Raster`; here stand the decisions that hold for all of
them. `docs/image_formats.md` lists them.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import ImageError, LayoutError, UserError
from datamodules.core.notes import warning
from datamodules.core.records import Image

# 400 megapixels: regions of public datasets stay well below, slides do not.
MAX_PIXELS = 20_000 * 20_000
# What Pillow, tifffile and imagecodecs were seen to raise for damaged files.
DAMAGE = (
    *(OSError, EOFError, ValueError, SyntaxError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, RuntimeError, MemoryError, struct.error, zlib.error),
)


@dataclass(frozen=True)
class Raster:
    """Decoded samples, upright."""

    path: Path  # for messages
    pixels: NDArray[Any]  # unsigned, (height, width) for grey and palette, (height, width, 3) RGB
    bits: int = 8  # of a sample in the file; one of 1, 2 and 4 bits is not scaled to 8
    alpha: NDArray[np.uint8] | None = None  # opacity (height, width); None where all is opaque
    palette: NDArray[np.uint8] | None = None  # colours (n, 3); None where samples are no indices
    white_is_zero: bool = False  # grey samples count from white
    lossy: bool = False  # the compression changes values

    def __post_init__(self) -> None:
        if self.alpha is not None and (self.alpha == 255).all():
            object.__setattr__(self, "alpha", None)

    def rgb(self) -> Image:
        """The picture as displayed; transparent parts lie over white.

        More than 8 bits a sample, and nothing but transparent pixels, are refused.
        """
        if self.bits > 8:
            problem = f"{self.bits} bits a channel; which range is meant cannot be told"
            raise refused(self.path, problem, "save it with 8 bits a channel")
        if self.palette is not None:
            colours = self._coloured(self.palette)
        else:
            colours = self.pixels.astype(np.uint8, copy=False)
            if self.bits < 8:
                colours = colours * np.uint8(255 // (2**self.bits - 1))
            colours = 255 - colours if self.white_is_zero else colours
            if colours.ndim == 2:
                colours = np.repeat(colours[..., None], 3, axis=2)
        if self.alpha is None:
            return np.ascontiguousarray(colours)
        if not self.alpha.any() and (colours != colours[0, 0]).any():
            raise refused(self.path, "every pixel is transparent", "save it without alpha channel")
        warning(self.path, "transparent pixels, laid over white")
        alpha = self.alpha[..., None].astype(np.uint16)
        return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)

    def ids(self, white: int = 1) -> NDArray[Any]:
        """The number that each pixel stands for, unsigned (height, width).

        `white` is the number of white where a mask knows black and white only; black is 0.
        Refused is what colours, transparency or a lossy compression leave open.
        """
        if self.lossy:
            problem = "is compressed with loss, which changes class indices"
            raise refused(self.path, problem, "save the mask as PNG", LayoutError)
        if self.alpha is not None and self.palette is None:
            problem = "mask has transparent pixels; what they mean cannot be told"
            raise refused(self.path, problem, "save it without alpha channel", LayoutError)
        if self.palette is not None:
            return self._indices(self.palette, white)
        if self.pixels.ndim == 3:
            if (self.pixels != self.pixels[..., :1]).any():
                remedy = "save it as one 8-bit channel of class indices"
                raise refused(self.path, "mask has colours", remedy, LayoutError)
            return np.ascontiguousarray(self.pixels[..., 0])
        if self.bits == 1:
            black_first = self.pixels != self.white_is_zero
            return np.where(black_first, white, 0).astype(np.min_scalar_type(white))
        if self.white_is_zero:
            problem = "mask counts from white (MinIsWhite), so its values are inverted"
            raise refused(self.path, problem, "save it as MinIsBlack", LayoutError)
        return self.pixels

    def _coloured(self, palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.pixels.max() >= len(palette):
            problem = f"holds index {self.pixels.max()}, its palette has {len(palette)} colours"
            raise refused(self.path, problem, "fetch the file again")
        return np.asarray(palette[self.pixels])

    def _indices(self, palette: NDArray[np.uint8], white: int) -> NDArray[Any]:
        """Indices are classes unless the palette says that greys or black and white are meant."""
        used = np.flatnonzero(np.bincount(self.pixels.ravel()))
        colours = self._coloured(palette)
        if set(map(tuple, palette.tolist())) <= {(0, 0, 0), (255, 255, 255)}:
            return np.where(colours[..., 0] > 0, white, 0).astype(np.min_scalar_type(white))
        if (palette[used] == used[:, None]).all():
            return self.pixels  # each index is its own grey value
        if (palette == palette[:, :1]).all():
            problem = "mask has a palette of greys: whether index or grey value counts is open"
            raise refused(self.path, problem, "save it as 8-bit grey", LayoutError)
        black = np.flatnonzero(~palette.any(axis=1))
        if palette[0].any() and np.isin(black, used).any():
            problem = "mask has a palette in which black is not the first colour"
            remedy = "save it as 8-bit grey with class indices"
            raise refused(self.path, problem, remedy, LayoutError)
        return self.pixels


def refused(path: Path, problem: str, remedy: str, kind: type[UserError] = ImageError) -> UserError:
    """The error for a file that is not read: what it is, and what to do."""
    return kind(f"{path}: {problem}; {remedy}")


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse no pixel, or more than `MAX_PIXELS`, before anything is decoded."""
    if width * height > MAX_PIXELS:
        problem = f"{width}x{height} px are more than {MAX_PIXELS // 10**6} megapixels"
        raise refused(path, problem, "cut it into regions")
    if width < 1 or height < 1:
        raise refused(path, f"{width}x{height} px", "fetch the file again")


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Rows and columns as displayed, from the orientation 1 to 8 of EXIF or TIFF."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Name the file in whatever a decoder raises within the block."""
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        reason = reason.replace(f" '{path}'", "").replace(f" {str(path)!r}", "")
        raise refused(path, f"not a readable image ({reason})", "fetch the file again") from error
