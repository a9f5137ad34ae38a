"""Where the tissue of a slide lies: Otsu's threshold on saturation, at low resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import Image
from datamodules.slides.pyramid import Pyramid, thumbnail

LONGEST = 2048  # pixels of the thumbnail's longer side
_SMALLEST_MM2 = 0.02  # specks and holes below this area count as what surrounds them
# Otsu always splits, also plain glass or a field full of tissue. Noise of glass stays below the
# one, and no glass reaches the other.
_LEAST, _MOST = 12, 50
_DARK = 20  # of 255: edges of the cover slip, whose saturation is noise


@dataclass(frozen=True)
class Tissue:
    """A slide at low resolution, and which of its pixels are tissue."""

    image: Image
    mask: NDArray[np.bool_]  # (height, width)
    scale: float  # pixels of level 0 per pixel

    def share(self, corners: NDArray[np.int64], span: float) -> NDArray[np.float64]:
        """Return the share of tissue in squares of `span` pixels of level 0 at (n, 2) corners."""
        total = cv2.integral(self.mask.astype(np.uint8))
        height, width = self.mask.shape
        low, high = corners / self.scale, (corners + span) / self.scale
        x0, x1 = (np.clip(np.rint(v[:, 0]).astype(int), 0, width) for v in (low, high))
        y0, y1 = (np.clip(np.rint(v[:, 1]).astype(int), 0, height) for v in (low, high))
        # A tile smaller than a pixel counts as that pixel.
        x0, y0 = np.minimum(x0, width - 1), np.minimum(y0, height - 1)
        x1, y1 = np.maximum(x1, x0 + 1), np.maximum(y1, y0 + 1)
        inside = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
        return np.asarray(inside / max(1.0, (span / self.scale) ** 2))


def find_tissue(slide: Pyramid, mpp: float) -> Tissue:
    """Find the tissue of a slide whose level 0 has `mpp` µm/px."""
    image = thumbnail(slide, LONGEST)
    scale = max(slide.levels[0].width / image.shape[1], slide.levels[0].height / image.shape[0])
    return Tissue(image, tissue_mask(image, mpp * scale), scale)


def tissue_mask(image: Image, mpp: float) -> NDArray[np.bool_]:
    """Return which pixels are tissue, of an image of a slide at low resolution."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    saturation = cv2.medianBlur(np.ascontiguousarray(hsv[..., 1]), 5)
    otsu, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask = (saturation > min(max(otsu, _LEAST), _MOST)) & (hsv[..., 2] > _DARK)
    smallest = _SMALLEST_MM2 * 1e6 / mpp**2
    mask = _without_small(mask, smallest)
    return ~_without_small(~mask, smallest)


def _without_small(mask: NDArray[Any], smallest: float) -> NDArray[np.bool_]:
    """Return a mask without connected pieces of fewer pixels."""
    _, labels, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = facts[:, cv2.CC_STAT_AREA] >= smallest
    large[0] = False  # the background
    return np.asarray(large[labels], np.bool_)
