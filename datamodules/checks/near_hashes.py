"""Pairs of 63-bit hashes that differ in few bits, without comparing all with all.

Multi-index hashing (Norouzi et al., Fast Search in Hamming Space with Multi-Index Hashing, CVPR
2012): of three parts of 21 bits, one differs in no more than a third of the bits in which the
hashes differ, so only hashes that share such a part, but for one bit, are compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_PARTS = 3
_BITS = 21
_AT_ONCE = 1 << 22  # comparisons held in memory

MAX_RADIUS = 5
"""Beyond it a third is two bits, and far more hashes would have to be compared."""

Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def close_pairs(orbit: NDArray[np.uint64], radius: int) -> Iterator[Found]:
    """Pairs within a Hamming radius in any of their variants; a pair may come several times.

    Args:
        orbit: uint64 (variants, n), 63 bits each; row 0 is what all rows are compared with.
        radius: bits that may differ, 0 to 5.

    Yields:
        int64 first and second index (first < second) and the bits in which they differ.

    Raises:
        ValueError: a radius out of range.
    """
    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius {radius}: expected 0 to {MAX_RADIUS}")
    probes = [0] if radius < _PARTS else [0, *(1 << bit for bit in range(_BITS))]
    for part in range(_PARTS):
        keys = _part(orbit[0], part)
        order = np.argsort(keys, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=1 << _BITS))])
        for variant in orbit:
            wanted = _part(variant, part)
            for probe in probes:
                bucket = wanted ^ probe
                yield from _compare(
                    (variant, orbit[0]),
                    (starts[bucket], starts[bucket + 1]),
                    np.asarray(order, np.int64),
                    radius,
                )


def _part(hashes: NDArray[np.uint64], part: int) -> NDArray[np.int64]:
    return np.asarray((hashes >> np.uint64(_BITS * part)) & np.uint64((1 << _BITS) - 1), np.int64)


def _compare(
    hashes: tuple[NDArray[np.uint64], NDArray[np.uint64]],
    spans: tuple[NDArray[np.int64], NDArray[np.int64]],
    order: NDArray[np.int64],
    radius: int,
) -> Iterator[Found]:
    """Compare each row with the hashes of its bucket, a bounded number at a time."""
    hit = np.flatnonzero(spans[1] > spans[0])
    lows, counts = spans[0][hit], (spans[1] - spans[0])[hit]
    ends = np.cumsum(counts)
    start = 0
    while start < len(hit):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, "right")))
        part, count = slice(start, stop), counts[start:stop]
        rows = np.repeat(hit[part], count)
        first = ends[part] - count - before  # where a row's comparisons begin among all
        others = order[np.arange(len(rows)) + np.repeat(lows[part] - first, count)]
        start = stop
        later = others > rows
        rows, others = rows[later], others[later]
        bits = np.bitwise_count(hashes[0][rows] ^ hashes[1][others]).astype(np.int64)
        near = bits <= radius
        if near.any():
            yield rows[near], others[near], bits[near]
