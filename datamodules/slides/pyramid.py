"""What every slide offers: an image at several resolutions, read region by region."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from datamodules.core.errors import SlideError
from datamodules.core.options import MPP_MAX, MPP_MIN
from datamodules.core.records import Image
from datamodules.formats.raster import DAMAGE

# As in store.parallel: forked readers hang if their parent has used OpenCV's threads.
cv2.setNumThreads(1)

_READ_PX = 2048  # side of the largest region that a thumbnail reads at once
FINER = 1.25
"""How much finer than the slide itself tiles may be: scanners differ by so much from 20x or 40x."""


@dataclass(frozen=True)
class Level:
    """One resolution of a slide."""

    width: int  # pixels
    height: int
    downsample: float  # pixels of level 0 per pixel of this one


class Pyramid(Protocol):
    """An image at several resolutions, the finest first.

    Attributes:
        path: the file, for messages.
        levels: all resolutions.
        mpp: µm/px of level 0; 0 if the file does not state it.
    """

    path: Path
    levels: tuple[Level, ...]
    mpp: float

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """Return a region, (height, width, 3); (x, y) is its corner in pixels of the level.

        What lies outside of the slide, or was not scanned, is white.

        Raises:
            SlideError: the region does not decode.
        """


def known_mpp(slide: Pyramid, stated: float = 0.0) -> float:
    """Return µm/px of level 0: as stated by the user, else by the file.

    Raises:
        SlideError: neither states it.
    """
    mpp = stated or slide.mpp
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise SlideError(
            f"{slide.path}: does not state its µm/px; add --slide-mpp with that of its finest "
            "level, as in --slide-mpp 0.25"
        )
    return mpp


def level_for(slide: Pyramid, slide_mpp: float, mpp: float) -> int:
    """Return the coarsest level that is at least as fine as µm/px wanted; level 0 if almost.

    Raises:
        SlideError: the slide is too coarse.
    """
    if slide_mpp > mpp * FINER:
        raise SlideError(
            f"{slide.path}: its finest level has {slide_mpp:.3g} µm/px, coarser than the "
            f"{mpp:.3g} wanted; ask for --mpp {slide_mpp:.3g}, or leave the slide out"
        )
    fine = [n for n, one in enumerate(slide.levels) if slide_mpp * one.downsample <= mpp * 1.01]
    return max(fine, key=lambda number: slide.levels[number].downsample, default=0)


def read_scaled(slide: Pyramid, level: int, x: float, y: float, span: float, side: int) -> Image:
    """Return the square of `span` pixels of level 0 at (x, y), scaled to `side` pixels."""
    down = slide.levels[level].downsample
    width = max(1, round(span / down))
    region = slide.read(level, round(x / down), round(y / down), width, width)
    if width == side:
        return region
    method = cv2.INTER_AREA if width > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(region, (side, side), interpolation=method), np.uint8)


def thumbnail(slide: Pyramid, longest: int) -> Image:
    """Return the whole slide with its longer side at `longest` pixels or less.

    It is read piece by piece, so the memory does not depend on the slide's size.
    """
    full = slide.levels[0]
    scale = max(1.0, max(full.width, full.height) / longest)
    fine = [n for n, one in enumerate(slide.levels) if one.downsample <= scale * 1.01]
    level = max(fine, key=lambda number: slide.levels[number].downsample)
    scale /= slide.levels[level].downsample
    width = max(1, round(slide.levels[level].width / scale))
    height = max(1, round(slide.levels[level].height / scale))
    out = np.empty((height, width, 3), np.uint8)
    step = max(1, int(_READ_PX / scale))
    for top in range(0, height, step):
        for left in range(0, width, step):
            down, right = min(step, height - top), min(step, width - left)
            size = max(1, round(right * scale)), max(1, round(down * scale))
            region = slide.read(level, round(left * scale), round(top * scale), *size)
            small = cv2.resize(region, (right, down), interpolation=cv2.INTER_AREA)
            out[top : top + down, left : left + right] = small
    return out


def unreadable(path: Path, error: BaseException) -> SlideError:
    """Return the error for a slide that does not decode."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return SlideError(f"{path}: not a readable slide ({reason}); fetch the file again")


DECODING = DAMAGE
"""What decoders were seen to raise for damaged files."""
