"""Patches that occur twice, within a store or across stores: the leak that splits do not show.

Exact: the same decoded pixels. Near: the same field turned, mirrored, recompressed, resized or
with other colours. Patches of an (almost) even colour are left out: they are all alike.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.checks.near_hashes import close_pairs
from datamodules.checks.perceptual_hash import orbit, similarity, thumbnails
from datamodules.store.reader import Store

log = logging.getLogger(__name__)

_BLOCK = 128  # patches read at a time
_FLAT = 1.0  # standard deviation of a thumbnail in grey levels; below lies no tissue
_MOST_PAIRS = 2_000_000  # near pairs kept before their pixels are compared

Pairs = NDArray[np.int64]
"""Catalogue numbers of two patches a row, int64 (n, 2)."""


@dataclass(frozen=True)
class Place:
    """A patch of a store.

    Attributes:
        dataset: name of the store.
        row: its row there.
        source: file it comes from.
        split: published split.
        group: patient, slide or case.
    """

    dataset: str
    row: int
    source: str
    split: str
    group: str

    def __str__(self) -> str:
        return f"{self.dataset} {self.source} (row {self.row}, {self.split}, {self.group})"


@dataclass(frozen=True)
class Pair:
    """Two patches that show the same.

    Attributes:
        first: where one lies.
        second: where the other lies.
        exact: whether all pixels are the same.
        similarity: correlation of their thumbnails, best over flips and rotations.
    """

    first: Place
    second: Place
    exact: bool
    similarity: float

    @property
    def across_splits(self) -> bool:
        """Whether they lie on two sides of a published split."""
        return self.first.split != self.second.split

    @property
    def across_datasets(self) -> bool:
        """Whether they lie in two stores."""
        return self.first.dataset != self.second.dataset

    def __str__(self) -> str:
        kind = "exact" if self.exact else f"near ({self.similarity:.2f})"
        return f"{kind}: {self.first} = {self.second}"


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
        pairs: the worst ones first: across splits, across datasets, across groups.
        exact, near: how many of each kind there are; of n equal patches n - 1 pairs count.
        patches: how many were compared.
        complete: False when near pairs were so many that the search stopped early.
    """

    pairs: tuple[Pair, ...]
    exact: int
    near: int
    patches: int
    complete: bool = True

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def text(self) -> str:
        """A line of numbers and one for each pair."""
        more = "" if self.complete else " or more"
        shown = f", the worst {len(self.pairs)}" if len(self.pairs) < self.exact + self.near else ""
        head = f"{self.patches} patches: {self.exact} exact and {self.near}{more} near duplicates"
        return "\n".join([head + shown, *(f"  {pair}" for pair in self.pairs)])


def find_duplicates(
    stores: Mapping[str, Store],
    radius: int = 5,
    threshold: float = 0.9,
    limit: int = 1000,
) -> Duplicates:
    """Find patches that occur twice.

    Memory: about 100 bytes per patch, and a block of patches.

    Args:
        stores: by name; patches of all of them are compared with one another.
        radius: bits in which the perceptual hashes of near duplicates may differ, 0 to 5.
        threshold: smallest correlation of their thumbnails.
        limit: how many pairs are listed; all are counted.
    """
    catalogue = _Catalogue(stores)
    firsts, exact = catalogue.exact_pairs()
    candidates, complete = catalogue.candidates(firsts, radius)
    scores = catalogue.similarities(candidates)
    near, scores = candidates[scores >= threshold], scores[scores >= threshold]
    pairs = np.concatenate([exact, near])
    similar = np.concatenate([np.ones(len(exact), np.float32), scores])
    same = np.arange(len(pairs)) < len(exact)
    order = catalogue.worst_first(pairs, similar)[:limit]
    found = tuple(
        Pair(
            catalogue.place(int(pairs[i, 0])),
            catalogue.place(int(pairs[i, 1])),
            bool(same[i]),
            float(similar[i]),
        )
        for i in order
    )
    return Duplicates(found, len(exact), len(near), len(catalogue), complete)


class _Catalogue:
    """Digest and hashes of every patch of several stores, under one running number."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self.names = list(stores)
        self.stores = list(stores.values())
        sizes = [len(store) for store in self.stores]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.digests = np.zeros((len(self), 2), np.uint64)
        self.hashes = np.zeros((8, len(self)), np.uint64)
        self.textured = np.zeros(len(self), bool)
        for number, store in enumerate(self.stores):
            log.info("%s: hashing %d patches", self.names[number], len(store))
            for start in range(0, len(store), _BLOCK):
                rows = np.arange(start, min(start + _BLOCK, len(store)))
                self._enter(store.images(rows), rows + self.starts[number])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _enter(self, images: NDArray[np.uint8], where: NDArray[np.int64]) -> None:
        raw = b"".join(hashlib.blake2b(image.data, digest_size=16).digest() for image in images)
        self.digests[where] = np.frombuffer(raw, np.uint64).reshape(-1, 2)
        thumbs = thumbnails(images)
        self.textured[where] = thumbs.std(axis=(1, 2)) > _FLAT
        self.hashes[:, where] = orbit(thumbs)

    def exact_pairs(self) -> tuple[NDArray[np.int64], Pairs]:
        """The first patch of every content, and pairs of it with each of its copies."""
        rows = np.flatnonzero(self.textured)
        if not len(rows):
            return rows, np.zeros((0, 2), np.int64)
        keys = np.ascontiguousarray(self.digests[rows]).view("V16").ravel()
        _, first, content = np.unique(keys, return_index=True, return_inverse=True)
        leaders = rows[first[content]]
        copies = leaders != rows
        return np.sort(rows[first]), np.stack([leaders[copies], rows[copies]], axis=1)

    def candidates(self, rows: NDArray[np.int64], radius: int) -> tuple[Pairs, bool]:
        """Pairs of patches with close hashes, and whether these are all of them."""
        found = np.zeros(0, np.int64)
        for first, second, _ in close_pairs(self.hashes[:, rows], radius):
            found = np.union1d(found, first * len(rows) + second)
            if len(found) > _MOST_PAIRS:
                return self._unfold(found[:_MOST_PAIRS], rows), False
        return self._unfold(found, rows), True

    @staticmethod
    def _unfold(found: NDArray[np.int64], rows: NDArray[np.int64]) -> Pairs:
        return np.stack([rows[found // max(1, len(rows))], rows[found % max(1, len(rows))]], axis=1)

    def similarities(self, pairs: Pairs) -> NDArray[np.float32]:
        """Correlation of the thumbnails of each pair, read again from the stores."""
        scores = np.zeros(len(pairs), np.float32)
        for start in range(0, len(pairs), _BLOCK):
            part = pairs[start : start + _BLOCK]
            one, other = (np.concatenate([self._thumb(int(i)) for i in side]) for side in part.T)
            scores[start : start + _BLOCK] = similarity(one, other)
        return scores

    def _thumb(self, number: int) -> NDArray[np.float32]:
        store, row = self._locate(number)
        return thumbnails(self.stores[store].images([row]))

    def _locate(self, number: int) -> tuple[int, int]:
        store = int(np.searchsorted(self.starts, number, "right")) - 1
        return store, number - int(self.starts[store])

    def worst_first(self, pairs: Pairs, similar: NDArray[np.float32]) -> NDArray[np.int64]:
        """Order of pairs: across splits, then datasets, then groups, then by similarity."""
        split = np.concatenate([store.split for store in self.stores])
        owner = np.repeat(np.arange(len(self.stores)), np.diff(self.starts))
        group = np.concatenate([store.group for store in self.stores])
        one, other = pairs.T
        splits, owners = split[one] != split[other], owner[one] != owner[other]
        groups = owners | (group[one] != group[other])
        return np.asarray(np.lexsort((-similar, ~groups, ~owners, ~splits)), np.int64)

    def place(self, number: int) -> Place:
        """Where a patch lies."""
        index, row = self._locate(number)
        name, store = self.names[index], self.stores[index]
        return Place(name, row, store.source(row), store.split_name(row), store.group_name(row))
