"""The one door for pixels: every image and mask of a dataset is opened here.

A file is read as what its content says, whatever its name ends with. What cannot be read rightly
is refused by name; `docs/image_formats.md` says what is read how, and a test keeps it true.
Boxes and masks refer to the image as displayed: turned as its EXIF orientation says.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.records import Image, Mask
from datamodules.formats import pillow_files, tiff_files
from datamodules.formats.raster import Raster, decoding, refused

MASK_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp"})
IMAGE_SUFFIXES = MASK_SUFFIXES | {".jpg", ".jpeg", ".webp", ".gif"}


def read_image(path: Path) -> Image:
    """Decode an image file to RGB, upright; transparent parts lie over white.

    Refused is what is cut short, or leaves open what the picture is.
    """
    return _load(path).rgb()


def read_mask(path: Path, white: int = 1) -> Mask:
    """Decode a label image, upright, without touching its values.

    `white` is the value of white where the mask knows black and white only; black is 0. Colours,
    and values over 255, are refused.
    """
    ids = read_ids(path, white)
    if ids.max() > 255:
        problem = f"mask holds the value {int(ids.max())}, expected class indices up to 255"
        raise refused(path, problem, "instance numbers are no classes", LayoutError)
    return np.asarray(ids, np.uint8)


def read_ids(path: Path, white: int = 1) -> NDArray[Any]:
    """As `read_mask`, but of up to 32 bits: numbers of instances."""
    return _load(path).ids(white)


def read_foreground(path: Path) -> Mask:
    """Where a mask of any colours is not black, 0 and 1."""
    raster = _load(path)
    coloured = raster.pixels.ndim == 3 and not raster.lossy and raster.alpha is None
    return np.asarray(raster.pixels.any(axis=2) if coloured else raster.ids() > 0, np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels as displayed, from the file's header, without decoding it."""
    size: tuple[int, int] = _format(path).size(path)
    return size


def mask_palette(path: Path) -> bytes:
    """The colours of a palette, three bytes each; empty where there are none but greys."""
    palette = _format(path).palette(path)
    plain = palette is None or (palette == palette[:, :1]).all()
    return b"" if plain else bytes(palette.tobytes())


def write_image(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write an image or mask (height, width[, 3 or 4]); folders are made as needed.

    The suffix decides the format: PNG and TIFF are lossless, JPEG has quality 95 and no 16 bits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"compress_level": 1} if path.suffix.lower() == ".png" else {}
    if path.suffix.lower() in (".jpg", ".jpeg"):
        options = {"quality": 95}
    PIL.Image.fromarray(pixels).save(path, **options)


def _load(path: Path) -> Raster:
    raster: Raster = _format(path).load(path)
    return raster


def _format(path: Path) -> ModuleType:
    """The module that reads such a file, by its first bytes."""
    with decoding(path):
        if not path.exists():
            raise DatasetNotFoundError(f"{path}: no such file")
        if not path.is_file():
            raise refused(path, "is no regular file", "put the image in its place")
        with path.open("rb") as file:
            start = file.read(4)
    if not start:
        raise refused(path, "is empty (0 bytes)", "fetch the file again")
    return tiff_files if start in tiff_files.MAGIC else pillow_files
