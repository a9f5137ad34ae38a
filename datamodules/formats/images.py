"""Reading image and mask files; all readers use these functions.

Pillow decodes all formats of the public datasets and, unlike faster decoders, refuses a
truncated file instead of returning grey rows; decoding happens once, when a store is written.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from datamodules.core.errors import DatasetNotFoundError, ImageError, LayoutError
from datamodules.core.records import Image, Mask

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
MAX_PIXELS = 20_000 * 20_000  # regions of public datasets stay well below; slides do not fit here


def read_image(path: Path) -> Image:
    """Decode an image file to RGB.

    Returns:
        uint8 (height, width, 3). Grey and palette images become RGB, alpha is dropped.

    Raises:
        DatasetNotFoundError: there is no such file.
        ImageError: it does not decode, is cut short, or has more than 8 bits a channel.
    """
    with _open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ImageError(
                f"{path}: mode {image.mode} has more than 8 bits a channel, expected RGB"
            )
        return np.asarray(_decoded(image, path).convert("RGB"))


def read_mask(path: Path) -> Mask:
    """Decode an 8-bit, single-channel label image without touching its values.

    Returns:
        uint8 (height, width); a bilevel image gives 0 and 1.

    Raises:
        DatasetNotFoundError: there is no such file.
        ImageError: it does not decode.
        LayoutError: it has several channels or more than 8 bits.
    """
    with _open(path) as image:
        if image.mode not in ("L", "P", "1"):
            raise LayoutError(
                f"{path}: mask has mode {image.mode}, expected one 8-bit channel of class indices"
            )
        return np.asarray(_decoded(image, path)).astype(np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels from the file's header, without decoding it."""
    with _open(path) as image:
        return image.height, image.width


def list_images(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; other files are skipped."""
    if not folder.is_dir():
        raise DatasetNotFoundError(f"{folder}: no such folder; expected image files in it")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an image or mask (height, width[, 3 or 4]) uint8; folders are made as needed.

    The suffix decides the format: PNG and TIFF are lossless, JPEG has quality 95.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {}
    if path.suffix.lower() == ".png":
        options["compress_level"] = 1
    elif path.suffix.lower() in (".jpg", ".jpeg"):
        options["quality"] = 95
    PIL.Image.fromarray(pixels).save(path, **options)


def _open(path: Path) -> PIL.Image.Image:
    try:
        with warnings.catch_warnings():
            # The size bound below replaces Pillow's, which large annotated regions exceed.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            image = PIL.Image.open(path)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not a readable image ({error}); fetch the file again") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ImageError(f"{path}: {image.width}x{image.height} px is larger than a region can be")
    return image


def _decoded(image: PIL.Image.Image, path: Path) -> PIL.Image.Image:
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{path}: does not decode ({error}); fetch the file again") from error
    return image
