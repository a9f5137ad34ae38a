"""A perceptual hash that survives rotation, mirroring, recompression, resizing and staining.

The hash holds the signs of the 63 lowest cosine frequencies of a grey thumbnail of 32 px. A mirror
image flips the signs of odd frequencies and a transposition swaps both axes, so the hashes of all
eight flips and rotations come from one transform.

Measured on 1800 real H&E patches of six datasets, 50 to 256 px: of copies that were rotated and
recompressed (JPEG 60), resized (0.8), brightened, restained or made noisy, at least 95 in 100
differ in up to 5 bits, and their thumbnails correlate above 0.9. Unrelated patches differ in 8
bits or more. Other copies are missed: of 948 patches of eight datasets, 75 in 100 were found when
2 % of the side were cropped around the centre (40 to 97, by dataset), 19 in 100 when shifted by
2 % along one axis, 2 in 100 along both, and none when shifted by 4 %.

Close hashes are searched by multi-index hashing (Norouzi et al., Fast Search in Hamming Space with
Multi-Index Hashing, CVPR 2012): if two hashes differ in at most 5 bits, one of their three parts
of 21 bits differs in at most one, so only hashes that nearly share a part are compared.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

SIDE = 32  # of the thumbnail in pixels
RADIUS = 5  # largest number of bits in which the hashes of near duplicates differ

_KEPT = 8  # frequencies per axis
# Bits in an order in which each third mixes low and high frequencies of both axes.
_MIXED = np.argsort(np.add.outer(np.arange(_KEPT), np.arange(_KEPT)).ravel() % 3, kind="stable")
_ORDER = _MIXED[_MIXED > 0]  # without the mean grey level
_WEIGHTS = np.uint64(1) << np.arange(63, dtype=np.uint64)

_PARTS = 3
_BITS = 21  # per part
_COMPARED = 1 << 22  # comparisons held in memory


def thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return grey levels, (n, 32, 32) float32, of images, (n, height, width, 3) uint8."""
    small = np.empty((len(images), SIDE, SIDE), np.float32)
    for row, image in enumerate(images):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small[row] = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small


def orbit(thumbs: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return the hashes of all eight flips and rotations of thumbnails, (8, n) uint64.

    Row 0 belongs to the thumbnails as they are.
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


def close_pairs(hashes: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Find pairs whose hashes are within `RADIUS` in any variant; a pair may occur repeatedly.

    Args:
        hashes: (variants, n) uint64, 63 bits each; row 0 is compared with all rows.

    Yields:
        (pairs, 2) int64 indices, the smaller one first.
    """
    for part in range(_PARTS):
        keys = _part(hashes[0], part)
        order = np.argsort(keys, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=1 << _BITS))])
        for variant in hashes:
            for flipped in (0, *(1 << bit for bit in range(_BITS))):
                buckets = _part(variant, part) ^ flipped
                for first, second in _candidates(buckets, starts, order):
                    near = np.bitwise_count(variant[first] ^ hashes[0][second]) <= RADIUS
                    if near.any():
                        yield np.stack([first[near], second[near]], axis=1)


def _candidates(
    buckets: NDArray[np.int64], starts: NDArray[np.int64], order: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield each row with every later row of its bucket, a bounded number at a time."""
    sizes = starts[buckets + 1] - starts[buckets]
    rows = np.flatnonzero(sizes)
    blocks = np.cumsum(sizes[rows]) // _COMPARED
    for block in np.split(rows, np.flatnonzero(np.diff(blocks)) + 1):
        size = sizes[block]
        offset = np.repeat(starts[buckets[block]] - np.cumsum(size) + size, size)
        first, second = np.repeat(block, size), order[offset + np.arange(len(offset))]
        later = second > first
        yield first[later], second[later]


def _part(hashes: NDArray[np.uint64], part: int) -> NDArray[np.int64]:
    return np.asarray((hashes >> np.uint64(_BITS * part)) & np.uint64((1 << _BITS) - 1), np.int64)


def similarity(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Correlate two lists of thumbnails, with the best flip or rotation of the second.

    Returns:
        (n,) float32, -1 to 1, independent of brightness and contrast.
    """
    reference, other = _normalise(first), _normalise(second)
    best = np.full(len(first), -1, np.float32)
    for turns in range(4):
        turned = np.rot90(other, turns, axes=(1, 2))
        for image in (turned, turned[:, :, ::-1]):
            best = np.maximum(best, np.einsum("nij,nij->n", reference, image))
    return best


def _normalise(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = thumbs - thumbs.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt(np.square(centred).sum(axis=(1, 2), keepdims=True))
    return np.asarray(centred / np.maximum(length, 1e-6), np.float32)
