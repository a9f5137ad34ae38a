"""Which samples make up which micro-batch.

The order is a pure function of the seed and the running number of the micro-batch. A sampler
therefore has no state to save: to resume it starts at another number.

A dataset's weight in the stream is its share of the images of a round. Every round holds every
dataset once, whatever the weights: so shapes are fixed, and the gradient weighs the tasks by their
loss weights alone. A larger share makes a dataset's part of the gradient less noisy, and its
passes shorter.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


@dataclass(frozen=True)
class Draw:
    """One dataset's samples in a micro-batch."""

    dataset: int  # its index in the stream
    rows: NDArray[np.int64]  # (n,), rows of the dataset's split
    seeds: NDArray[np.int64]  # (n,), seed of each sample's augmentation
    valid: int  # only the first `valid` samples count; the others are padding
    step: int  # running number of the micro-batch


@dataclass(frozen=True)
class Stream:
    """The plan of an endless round robin over datasets.

    A round draws one batch from every dataset. It is spread over `micro_batches_per_round`
    micro-batches of at most `per_batch` datasets. Ranks see the same datasets in the same order
    and disjoint samples. A dataset is reshuffled at every pass through it; if it is balanced,
    each of its classes is reshuffled on its own.

    >>> stream = Stream(sizes=(5, 3), batch_sizes=(2, 1), per_batch=2, seed=0)
    >>> for step in range(3):
    ...     print([draw.rows.tolist() for draw in stream.micro_batch(step)])
    [[2, 4], [1]]
    [[3, 0], [2]]
    [[1, 2], [0]]
    """

    sizes: tuple[int, ...]  # samples per dataset
    batch_sizes: tuple[int, ...]  # samples per dataset, round and rank
    per_batch: int  # datasets per micro-batch (K)
    seed: int  # of all orders
    rank: int = 0
    world: int = 1  # number of ranks
    # For each dataset the rows of each class, which are then drawn equally often; or none.
    classes: tuple[tuple[NDArray[np.int64], ...], ...] = ()

    @property
    def micro_batches_per_round(self) -> int:
        """Micro-batches that together hold every dataset once."""
        return -(-len(self.sizes) // self.per_batch)

    @property
    def smallest(self) -> int:
        """Images of the smallest micro-batch that can occur."""
        return sum(sorted(self.batch_sizes)[: (len(self.sizes) - 1) % self.per_batch + 1])

    @property
    def largest(self) -> int:
        """Images of the largest micro-batch that can occur."""
        return sum(sorted(self.batch_sizes)[-self.per_batch :])

    def micro_batch(self, step: int) -> list[Draw]:
        """Return the draws of micro-batch number `step`, counted from 0 over the whole run."""
        number, place = divmod(step, self.micro_batches_per_round)
        order = np.arange(len(self.sizes))
        if self.micro_batches_per_round > 1:
            order = np.random.default_rng((self.seed, 1, number)).permutation(order)
        chosen = order[place * self.per_batch : (place + 1) * self.per_batch]
        return [self._draw(int(dataset), number, step) for dataset in sorted(chosen)]

    def _draw(self, dataset: int, number: int, step: int) -> Draw:
        batch = self.batch_sizes[dataset]
        first = (number * self.world + self.rank) * batch
        places = np.arange(first, first + batch)
        balanced = self.classes and self.classes[dataset]
        rows = (self._balanced if balanced else self._in_passes)(dataset, places)
        # The running place is unique over ranks and passes, so it can seed the augmentation.
        seeds = (places * 1_000_003 + dataset * 7919 + self.seed * 104_729) % (2**31 - 1)
        return Draw(dataset, rows, seeds, batch, step)

    def _in_passes(self, dataset: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        size = self.sizes[dataset]
        rows = np.empty(len(places), np.int64)
        for lap in np.unique(places // size):
            in_lap = places // size == lap
            order = _permutation(self.seed, dataset, int(lap), size)
            rows[in_lap] = order[places[in_lap] % size]
        return rows

    def _balanced(self, dataset: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take one sample of each class in every turn of as many places as there are classes."""
        classes = self.classes[dataset]
        rows = np.empty(len(places), np.int64)
        for index, place in enumerate(places.tolist()):
            turn, position = divmod(place, len(classes))
            order = np.random.default_rng((self.seed, 2, dataset, turn)).permutation(len(classes))
            number = int(order[position])
            members = classes[number]
            lap, within = divmod(turn, len(members))
            shuffled = _class_permutation(self.seed, dataset, number, lap, len(members))
            rows[index] = members[shuffled[within]]
        return rows


def batch_shares(
    sizes: Sequence[int], default: int, explicit: Sequence[int | None], power: float
) -> tuple[int, ...]:
    """Return the images of each dataset in a round, from its number of training images.

    A dataset with an explicit number keeps it. The others share what they would hold together
    with `default` images each, in proportion to size ** power and with one image at least, by
    Webster's method: power 0 gives equal shares, 1 shares proportional to size; values between
    are known as a temperature of 1 / power.

    >>> batch_shares([1000, 100, 10], default=8, explicit=[None, None, 4], power=0.5)
    (12, 4, 4)
    """
    shared = [index for index, number in enumerate(explicit) if number is None]
    weights = np.array([float(sizes[index]) ** power for index in shared])
    shares = np.ones(len(shared), np.int64)
    for _ in range((default - 1) * len(shared)):
        shares[np.argmax(weights / (2 * shares + 1))] += 1
    by_index = dict(zip(shared, shares.tolist(), strict=True))
    return tuple(
        by_index[index] if number is None else number for index, number in enumerate(explicit)
    )


@lru_cache(maxsize=64)
def _permutation(seed: int, dataset: int, lap: int, size: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, 0, dataset, lap)).permutation(size)


@lru_cache(maxsize=512)
def _class_permutation(
    seed: int, dataset: int, number: int, lap: int, size: int
) -> NDArray[np.int64]:
    return np.random.default_rng((seed, 3, dataset, number, lap)).permutation(size)


@dataclass(frozen=True)
class TrainSampler(Sampler[list[Draw]]):
    """Micro-batches of one epoch after another."""

    stream: Stream
    length: int  # micro-batches per epoch
    position: Callable[[], int]  # micro-batches trained so far; called at each epoch start

    @property
    def largest(self) -> int:
        """Images of the largest micro-batch."""
        return self.stream.largest

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[Draw]]:
        first = self.position()
        for step in range(first, first + self.length - first % self.length):
            yield self.stream.micro_batch(step)


@dataclass(frozen=True)
class SweepSampler(Sampler[list[Draw]]):
    """Every sample of every dataset exactly once, in order, spread over the ranks.

    All ranks get the same number of batches and stay in step; missing samples of a rank are
    replaced by padding that does not count (`Draw.valid`).
    """

    sizes: tuple[int, ...]  # samples per dataset
    batch_size: int
    rank: int = 0
    world: int = 1  # number of ranks

    @property
    def largest(self) -> int:
        """Images of the largest micro-batch."""
        return self.batch_size

    def __len__(self) -> int:
        return sum(-(-size // (self.batch_size * self.world)) for size in self.sizes)

    def __iter__(self) -> Iterator[list[Draw]]:
        step = 0
        for dataset, size in enumerate(self.sizes):
            for start in range(0, size, self.batch_size * self.world):
                stop = min(size, start + self.batch_size * self.world)
                valid = np.arange(start + self.rank, stop, self.world)
                width = -(-(stop - start) // self.world)
                rows = np.resize(valid if len(valid) else np.arange(start, start + 1), width)
                yield [Draw(dataset, rows, np.zeros(width, np.int64), len(valid), step)]
                step += 1
