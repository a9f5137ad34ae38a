"""Which samples make up which micro-batch.

The order is a pure function of the seed and the running number of the micro-batch. A sampler
therefore has no state to lose: to resume it starts at another number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


@dataclass(frozen=True)
class Draw:
    """One dataset's samples in a micro-batch.

    Attributes:
        dataset: position of the dataset in the stream.
        rows: int64 (n,), rows of the dataset's split.
        seeds: int64 (n,), seed of each sample's augmentation.
        valid: how many of them count; the rest only pads.
        step: running number of the micro-batch.
    """

    dataset: int
    rows: NDArray[np.int64]
    seeds: NDArray[np.int64]
    valid: int
    step: int


@dataclass(frozen=True)
class Stream:
    """The plan of an endless round robin over datasets.

    A round draws one batch from every dataset. It is spread over `micro_batches_per_round`
    micro-batches of at most `per_batch` datasets. Ranks see the same datasets in the same order
    and disjoint samples. A dataset is reshuffled at every pass through it.

    Attributes:
        sizes: samples per dataset.
        batch_sizes: samples per dataset, round and rank.
        per_batch: datasets per micro-batch (K).
        seed: of all orders.
        rank, world: this process and how many there are.
    """

    sizes: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    per_batch: int
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def micro_batches_per_round(self) -> int:
        """Micro-batches that together hold every dataset once."""
        return -(-len(self.sizes) // self.per_batch)

    def micro_batch(self, step: int) -> list[Draw]:
        """The draws of micro-batch number `step`, counted from 0 over the whole run."""
        number, place = divmod(step, self.micro_batches_per_round)
        order = np.arange(len(self.sizes))
        if self.micro_batches_per_round > 1:
            order = np.random.default_rng((self.seed, 1, number)).permutation(order)
        chosen = order[place * self.per_batch : (place + 1) * self.per_batch]
        return [self._draw(int(dataset), number, step) for dataset in sorted(chosen)]

    def _draw(self, dataset: int, number: int, step: int) -> Draw:
        size, batch = self.sizes[dataset], self.batch_sizes[dataset]
        first = (number * self.world + self.rank) * batch
        places = np.arange(first, first + batch)
        rows = np.empty(batch, np.int64)
        for lap in np.unique(places // size):
            mine = places // size == lap
            order = _permutation(self.seed, dataset, int(lap), size)
            rows[mine] = order[places[mine] % size]
        # The running place is unique over ranks and passes, so it can seed the augmentation.
        seeds = (places * 1_000_003 + dataset * 7919 + self.seed * 104_729) % (2**31 - 1)
        return Draw(dataset, rows, seeds, batch, step)


@lru_cache(maxsize=64)
def _permutation(seed: int, dataset: int, lap: int, size: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, 0, dataset, lap)).permutation(size)


class TrainSampler(Sampler[list[Draw]]):
    """Micro-batches of one epoch after the other.

    Args:
        stream: the plan.
        length: micro-batches per epoch.
        position: micro-batches trained so far; asked when an epoch begins.
    """

    def __init__(self, stream: Stream, length: int, position: Callable[[], int]) -> None:
        self.stream = stream
        self.length = length
        self.position = position

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[Draw]]:
        first = self.position()
        for step in range(first, first + self.length - first % self.length):
            yield self.stream.micro_batch(step)


class SweepSampler(Sampler[list[Draw]]):
    """Every sample of every dataset exactly once, in order, spread over the ranks.

    All ranks get the same number of batches, so that they stay in step; what a rank lacks is
    padded with samples that do not count (`Draw.valid`).

    Args:
        sizes: samples per dataset.
        batch_size: samples per batch.
        rank, world: this process and how many there are.
    """

    def __init__(
        self, sizes: tuple[int, ...], batch_size: int, rank: int = 0, world: int = 1
    ) -> None:
        self.batches: list[tuple[int, int]] = [
            (dataset, start)
            for dataset, size in enumerate(sizes)
            for start in range(0, size, batch_size * world)
        ]
        self.sizes = sizes
        self.batch_size = batch_size
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step, (dataset, start) in enumerate(self.batches):
            stop = min(self.sizes[dataset], start + self.batch_size * self.world)
            mine = np.arange(start + self.rank, stop, self.world)
            width = -(-(stop - start) // self.world)
            rows = np.resize(mine if len(mine) else np.arange(start, start + 1), width)
            yield [Draw(dataset, rows, np.zeros(width, np.int64), len(mine), step)]
