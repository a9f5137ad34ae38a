"""PNG, JPEG, BMP, WebP and GIF, decoded by Pillow; `datamodules.formats.images` calls this.

Pillow refuses a truncated file instead of returning grey rows. What it changes in silence is
undone here: samples of few bits are scaled back, and 16 bits are not cut to 8.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from datamodules.core.notes import warning
from datamodules.formats.raster import DAMAGE, Raster, check_size, decoding, refused, upright

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")  # MPO, of several JPEG, opens as JPEG
_ENDINGS = {
    **dict.fromkeys((".jpg", ".jpeg"), ("JPEG", "MPO")),
    **{f".{name.lower()}": (name,) for name in ("PNG", "BMP", "WEBP", "GIF")},
}
_ORIENTATION = 274  # of EXIF
_TAG = (b"\x01\x12\x00\x03", b"\x12\x01\x03\x00")  # how its entry begins

# Pillow's own bound, 89 megapixels, lies below that of `check_size`, which replaces it.
PIL.Image.MAX_IMAGE_PIXELS = None
# What it warns of, damaged EXIF data, `_orientation` tells where it matters.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def size(path: Path) -> tuple[int, int]:
    """Height and width as displayed."""
    with _opened(path) as image:
        turned = _orientation(path, image) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def palette(path: Path) -> NDArray[np.uint8] | None:
    """The palette, uint8 (n, 3), of a file that has one; pixels are not decoded."""
    with _opened(path) as image, decoding(path):
        if image.mode != "P" or image.palette is None:
            return None
        layout, data = image.palette.getdata()
        colours = np.frombuffer(data, np.uint8).reshape(-1, len(layout))[:, :3]
        return colours[:, ::-1] if layout.startswith("BGR") else colours


def load(path: Path) -> Raster:
    """Decode a file."""
    with _opened(path) as image, decoding(path):
        _check_complete(path, image)
        pictures = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if pictures > 1:
            raise refused(path, f"animation of {pictures} pictures", "save the one that is meant")
        bits = _bits(path, image)
        image.load()
        samples, mode, colours = np.asarray(image), image.mode, _palette(image)
        orientation, key = _orientation(path, image), image.info.get("transparency")
        lossy = image.format in ("JPEG", "MPO") or (image.format == "WEBP" and not _is_vp8l(path))
    pixels, alpha = samples, None
    if mode in ("LA", "RGBA"):
        pixels, alpha = samples[..., :-1], samples[..., -1]
        pixels = pixels[..., 0] if mode == "LA" else pixels
    elif mode in ("1", "L") and bits < 8:
        pixels = samples.astype(np.uint8) // np.uint8(255 // (2**bits - 1) if mode == "L" else 1)
    if alpha is None and key is not None:
        alpha = _opacity(pixels, key, mode)
    if orientation > 1:
        warning(path, "turned as its EXIF orientation says; masks and boxes must fit it so")
        pixels = upright(pixels, orientation)
        alpha = None if alpha is None else upright(alpha, orientation)
    return Raster(path, pixels, bits, alpha, colours, lossy=lossy)


@contextmanager
def _opened(path: Path) -> Iterator[PIL.Image.Image]:
    with decoding(path):
        image = PIL.Image.open(path, formats=_FORMATS)
    with image:
        check_size(path, image.width, image.height)
        if image.format not in _ENDINGS.get(path.suffix.lower(), ()):
            warning(path, f"is {image.format}, though its name ends otherwise")
        yield image


def _check_complete(path: Path, image: PIL.Image.Image) -> None:
    """Refuse what the decoder lets pass: PNG's checksums, and JPEG that was filled up."""
    if image.format == "PNG":
        with PIL.Image.open(path, formats=("PNG",)) as again:
            again.verify()
    elif image.format in ("JPEG", "MPO"):
        data = path.read_bytes()
        if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
            raise refused(path, "truncated: the JPEG has no end", "fetch the file again")


def _bits(path: Path, image: PIL.Image.Image) -> int:
    """Bits of a sample in the file; Pillow's mode alone does not tell."""
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        raise refused(path, f"{image.format} of mode {image.mode}", "save it as 8-bit RGB")
    if image.mode == "1":
        return 1
    if image.format == "PNG":
        with path.open("rb") as file:
            depth = file.read(25)[24]
        if depth == 16 and image.mode != "I;16":
            problem = "PNG with 16 bits a channel; which range is meant cannot be told"
            raise refused(path, problem, "save it with 8 bits a channel")
        return depth if image.mode in ("L", "I;16") else 8
    return 16 if image.mode == "I;16" else 8


def _orientation(path: Path, image: PIL.Image.Image) -> int:
    """How the picture is to be turned, 1 to 8; 1 where EXIF data say nothing that can be read."""
    data = image.info.get("exif", b"")
    try:
        value = image.getexif().get(_ORIENTATION)
    except DAMAGE:
        value, data = None, _TAG[0]
    if value is None and any(tag in data for tag in _TAG):
        warning(path, "damaged EXIF data, taken as upright")
    return int(value) if value is not None and value in range(1, 9) else 1


def _palette(image: PIL.Image.Image) -> NDArray[np.uint8] | None:
    colours = image.getpalette() if image.mode == "P" else None
    return None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)


def _opacity(
    pixels: NDArray[np.uint8], key: bytes | int | tuple[int, ...], mode: str
) -> NDArray[np.uint8]:
    """Opacity from a transparent colour, a transparent index, or the opacity of each index."""
    if mode == "RGB":
        return np.where((pixels == np.array(key)).all(axis=2), 0, 255).astype(np.uint8)
    if isinstance(key, bytes):
        table = np.full(256, 255, np.uint8)
        table[: len(key)] = np.frombuffer(key[:256], np.uint8)
        return table[pixels]
    return np.where(pixels == key, 0, 255).astype(np.uint8)


def _is_vp8l(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16)[12:] == b"VP8L"
