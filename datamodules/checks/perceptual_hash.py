"""A hash that turning, mirroring, recompressing, resizing and restaining hardly change.

63 signs of the lowest cosine frequencies of a 32 px grey thumbnail. A mirror image flips the
signs of odd frequencies and a transposition swaps both axes, so the hashes of all eight flips and
rotations come from one transform.

Measured on 1800 real H&E patches of six datasets, 50 to 256 px: of copies that were turned and
recompressed (JPEG 60), resized (0.8), brightened, restained or made noisy, at least 95 in 100
differ in up to 5 bits, and their thumbnails correlate above 0.9. Unrelated patches differ in 8
bits or more. Other copies get lost: of 948 patches of eight datasets, 75 in 100 were found when 2 %
of the side were cropped around the centre (40 to 97, by dataset), 19 in 100 when shifted by 2 %
along one axis, 2 in 100 along both, and none when shifted by 4 %.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

SIDE = 32
"""Side of the thumbnail in pixels."""

_KEPT = 8  # frequencies per axis
# Bits in an order in which each third mixes low and high frequencies of both axes.
_MIXED = np.argsort(np.add.outer(np.arange(_KEPT), np.arange(_KEPT)).ravel() % 3, kind="stable")
_ORDER = _MIXED[_MIXED > 0]  # the mean grey level says nothing
_WEIGHTS = np.uint64(1) << np.arange(63, dtype=np.uint64)


def thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey thumbnails of images of any one size.

    Args:
        images: uint8 (n, height, width, 3).

    Returns:
        float32 (n, 32, 32), grey levels.
    """
    small = np.empty((len(images), SIDE, SIDE), np.float32)
    for row, image in enumerate(images):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small[row] = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small


def orbit(thumbs: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Hashes of all eight flips and rotations of each thumbnail.

    Returns:
        uint64 (8, n); row 0 is the thumbnail as it is.
    """
    low = np.asarray(dctn(thumbs, axes=(1, 2), norm="ortho")[:, :_KEPT, :_KEPT], np.float32)
    odd = np.where(np.arange(_KEPT) % 2, -1, 1).astype(np.float32)
    hashes = [
        _pack(turned * (odd[:, None] if down else 1) * (odd if right else 1))
        for turned in (low, low.transpose(0, 2, 1))
        for down in (False, True)
        for right in (False, True)
    ]
    return np.stack(hashes)


def _pack(low: NDArray[np.float32]) -> NDArray[np.uint64]:
    signs = (low > 0).reshape(len(low), -1)[:, _ORDER]
    return np.asarray((signs * _WEIGHTS).sum(axis=1, dtype=np.uint64))


def similarity(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Correlation of two lists of thumbnails, the best over flips and rotations of the second.

    Args:
        one: float32 (n, 32, 32).
        other: float32 (n, 32, 32).

    Returns:
        float32 (n,), -1 to 1; brightness and contrast have no effect.
    """
    left = _normal(one)
    best = np.full(len(one), -1, np.float32)
    for turns in range(4):
        turned = np.rot90(_normal(other), turns, axes=(1, 2))
        for image in (turned, turned[:, :, ::-1]):
            best = np.maximum(best, np.einsum("nij,nij->n", left, image))
    return best


def _normal(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = thumbs - thumbs.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt(np.square(centred).sum(axis=(1, 2), keepdims=True))
    return np.asarray(centred / np.maximum(length, 1e-6), np.float32)
