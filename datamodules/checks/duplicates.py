"""Search for duplicate patches within and across stores, which splits do not reveal.

Exact duplicates have the same decoded pixels. Near duplicates show the same field rotated,
mirrored, recompressed, resized or with other colours. Patches of an almost uniform colour are
ignored: they all look alike.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.checks.perceptual_hash import close_pairs, orbit, similarity, thumbnails
from datamodules.store.reader import Store

log = logging.getLogger(__name__)

THRESHOLD = 0.9  # smallest correlation of the thumbnails of near duplicates
_BLOCK = 128  # patches read at a time
_FLAT = 1.0  # standard deviation of a thumbnail in grey levels; below it, there is no tissue
_MAX_PAIRS = 2_000_000  # candidates kept before their pixels are compared

Pairs = NDArray[np.int64]
"""Catalogue numbers of two patches per row, (n, 2) int64."""


@dataclass(frozen=True)
class Place:
    """A patch of a store: its row, source file, published split, and patient, slide or case."""

    dataset: str
    row: int
    source: str
    split: str
    group: str

    def __str__(self) -> str:
        return f"{self.dataset} {self.source} (row {self.row}, {self.split}, {self.group})"


@dataclass(frozen=True)
class Pair:
    """Two patches with the same content."""

    first: Place
    second: Place
    exact: bool  # all pixels are the same
    similarity: float  # correlation of their thumbnails, maximum over flips and rotations

    def __str__(self) -> str:
        kind = "exact" if self.exact else f"near ({self.similarity:.2f})"
        return f"{kind}: {self.first} = {self.second}"


@dataclass(frozen=True)
class Duplicates:
    """Result of a search; n equal patches count as n - 1 pairs."""

    pairs: tuple[Pair, ...]  # most harmful first: across splits, across datasets, across groups
    exact: int
    near: int
    patches: int  # that were compared
    complete: bool = True  # False when the search stopped early at too many near pairs

    def text(self) -> str:
        """A line of counts and one for each pair."""
        more = "" if self.complete else " or more"
        shown = f", the worst {len(self.pairs)}" if len(self.pairs) < self.exact + self.near else ""
        head = f"{self.patches} patches: {self.exact} exact and {self.near}{more} near duplicates"
        return "\n".join([head + shown, *(f"  {pair}" for pair in self.pairs)])


def find_duplicates(stores: Mapping[str, Store], limit: int = 1000) -> Duplicates:
    """Find patches that occur twice; takes about 100 bytes of memory per patch.

    Args:
        stores: by name; patches of all of them are compared with one another.
        limit: maximum number of pairs to list; all are counted.
    """
    catalogue = _Catalogue(stores)
    unique, exact = catalogue.exact_pairs()
    candidates, complete = catalogue.candidates(unique)
    scores = catalogue.similarities(candidates)
    near, scores = candidates[scores >= THRESHOLD], scores[scores >= THRESHOLD]
    numbers = np.concatenate([exact, near])
    similar = np.concatenate([np.ones(len(exact), np.float32), scores])
    order = catalogue.worst_first(numbers, similar)[:limit]
    pairs = [
        Pair(catalogue.place(one), catalogue.place(other), bool(i < len(exact)), float(similar[i]))
        for i, (one, other) in zip(order, numbers[order].tolist(), strict=True)
    ]
    return Duplicates(tuple(pairs), len(exact), len(near), len(catalogue), complete)


class _Catalogue:
    """Digests and hashes of all patches of several stores, numbered consecutively."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self.names = list(stores)
        self.stores = list(stores.values())
        sizes = [len(store) for store in self.stores]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.digests = np.zeros(len(self), "V16")
        self.hashes = np.zeros((8, len(self)), np.uint64)
        self.textured = np.zeros(len(self), bool)
        for start, (name, store) in zip(self.starts, stores.items(), strict=False):
            log.info("%s: hashing %d patches", name, len(store))
            for first in range(0, len(store), _BLOCK):
                rows = np.arange(first, min(first + _BLOCK, len(store)))
                self._add(store.images(rows), rows + start)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _add(self, images: NDArray[np.uint8], numbers: NDArray[np.int64]) -> None:
        digests = [hashlib.blake2b(image.data, digest_size=16).digest() for image in images]
        self.digests[numbers] = np.frombuffer(b"".join(digests), "V16")
        thumbs = thumbnails(images)
        self.textured[numbers] = thumbs.std(axis=(1, 2)) > _FLAT
        self.hashes[:, numbers] = orbit(thumbs)

    def exact_pairs(self) -> tuple[NDArray[np.int64], Pairs]:
        """Return the first patch of every content, and its pairs with each of its copies."""
        rows = np.flatnonzero(self.textured)
        _, first, content = np.unique(self.digests[rows], return_index=True, return_inverse=True)
        originals = rows[first[content]]
        copies = originals != rows
        return np.sort(rows[first]), np.stack([originals[copies], rows[copies]], axis=1)

    def candidates(self, rows: NDArray[np.int64]) -> tuple[Pairs, bool]:
        """Return pairs of patches with close hashes, and whether these are all of them."""
        keys = np.zeros(0, np.int64)
        for pairs in close_pairs(self.hashes[:, rows]):
            keys = np.union1d(keys, pairs[:, 0] * len(rows) + pairs[:, 1])
            if len(keys) > _MAX_PAIRS:
                break
        kept = np.divmod(keys[:_MAX_PAIRS], max(1, len(rows)))
        return rows[np.stack(kept, axis=1)], len(keys) <= _MAX_PAIRS

    def similarities(self, pairs: Pairs) -> NDArray[np.float32]:
        """Correlate the thumbnails of each pair, read again from the stores."""
        scores = np.zeros(len(pairs), np.float32)
        for start in range(0, len(pairs), _BLOCK):
            part = pairs[start : start + _BLOCK]
            places = [[self._locate(int(i)) for i in side] for side in part.T]
            first, second = (
                np.concatenate(
                    [thumbnails(self.stores[store].images([row])) for store, row in side]
                )
                for side in places
            )
            scores[start : start + _BLOCK] = similarity(first, second)
        return scores

    def _locate(self, number: int) -> tuple[int, int]:
        store = int(np.searchsorted(self.starts, number, "right")) - 1
        return store, number - int(self.starts[store])

    def worst_first(self, pairs: Pairs, similar: NDArray[np.float32]) -> NDArray[np.int64]:
        """Sort pairs: across splits, then datasets, then groups, then by similarity."""
        split = np.concatenate([store.split for store in self.stores])
        group = np.concatenate([store.group for store in self.stores])
        dataset = np.repeat(np.arange(len(self.stores)), np.diff(self.starts))
        splits, datasets, groups = (
            of[pairs[:, 0]] != of[pairs[:, 1]] for of in (split, dataset, group)
        )
        return np.lexsort((-similar, ~(datasets | groups), ~datasets, ~splits))

    def place(self, number: int) -> Place:
        """Describe a patch."""
        index, row = self._locate(number)
        name, store = self.names[index], self.stores[index]
        return Place(name, row, store.source(row), store.split_name(row), store.group_name(row))
