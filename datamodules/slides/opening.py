"""Opening a slide with the library that reads its format, and finding slides in a folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from datamodules.core.errors import DatasetNotFoundError, SlideError
from datamodules.core.records import Image
from datamodules.formats.images import IMAGE_SUFFIXES
from datamodules.formats.layout import list_files, subfolders
from datamodules.slides.pyramid import DECODING, Level, Pyramid, unreadable
from datamodules.slides.pyramidal_tiff import PyramidalTiff, is_tiff

TIFF_SUFFIXES = (".tif", ".tiff")
SCANNER_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi")
"""Endings of files that only slides have."""


class OpenSlideFile:
    """A slide in one of OpenSlide's formats; see `Pyramid`.

    Raises:
        SlideError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        import openslide

        self.path = path
        try:
            self._slide = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, *DECODING) as error:
            raise unreadable(path, error) from error
        shapes = zip(self._slide.level_dimensions, self._slide.level_downsamples, strict=True)
        self.levels = tuple(Level(*size, down) for size, down in shapes)
        self.mpp = _number(self._slide.properties.get("openslide.mpp-x", ""))
        self._failures = (openslide.OpenSlideError, *DECODING)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """Return a region; see `Pyramid`."""
        down = self.levels[level].downsample
        try:
            corner = round(x * down), round(y * down)
            region = self._slide.read_region(corner, level, (width, height))
        except self._failures as error:
            raise unreadable(self.path, error) from error
        pixels = np.asarray(region)
        out = pixels[..., :3].copy()
        out[pixels[..., 3] == 0] = 255
        return out


def open_slide(path: Path) -> Pyramid:
    """Open a slide.

    Raises:
        SlideError: it does not exist, is damaged, or no library here reads it.
    """
    if not path.is_file():
        raise SlideError(f"{path}: no such slide")
    with path.open("rb") as file:
        if not file.read(1):
            raise SlideError(f"{path}: is empty (0 bytes); fetch the file again")
    installed = importlib.util.find_spec("openslide") is not None
    if installed:
        import openslide

        # Plain TIFF is read without it: it passes over SubIFDs, in which OME keeps its levels.
        if openslide.OpenSlide.detect_format(path) not in (None, "generic-tiff"):
            return OpenSlideFile(path)
    if is_tiff(path):
        return PyramidalTiff(path)
    remedy = "export it as pyramidal TIFF"
    if not installed:
        remedy = f'`make install EXTRAS="offline-weights dev slides"` adds OpenSlide, or {remedy}'
    raise SlideError(f"{path}: no slide that can be read; {remedy}")


def is_slide(path: Path) -> bool:
    """Return whether a file is a slide, not an image: by its ending, or a pyramid in TIFF."""
    if path.suffix.lower() in SCANNER_SUFFIXES:
        return True
    if path.suffix.lower() not in TIFF_SUFFIXES or not path.is_file() or not is_tiff(path):
        return False
    try:
        return len(PyramidalTiff(path).levels) > 1
    except SlideError:
        return False


def slides_in(folder: Path) -> list[Path]:
    """Return the slides in a folder and all below it, in order of path; none if it holds images.

    It holds slides if no other image lies there and the first TIFF, if any, is a pyramid.

    Raises:
        DatasetNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise DatasetNotFoundError(f"{folder}: no such file or folder")
    found = _walk(folder)
    tiffs = [path for path in found if path.suffix.lower() in TIFF_SUFFIXES]
    others = [p for p in found if p.suffix.lower() not in (*TIFF_SUFFIXES, *SCANNER_SUFFIXES)]
    if others or (tiffs and len(tiffs) == len(found) and not is_slide(tiffs[0])):
        return []
    return found


def _walk(folder: Path) -> list[Path]:
    suffixes = IMAGE_SUFFIXES | set(SCANNER_SUFFIXES)
    inner = [path for path in subfolders(folder) if not path.is_symlink()]
    return sorted([*list_files(folder, suffixes), *(p for one in inner for p in _walk(one))])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
