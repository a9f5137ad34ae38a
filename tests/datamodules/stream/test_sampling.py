"""The order of samples: disjoint over ranks, complete, and a pure function of the step."""

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.stream.sampling import (
    Stream,
    SweepSampler,
    TrainSampler,
    _class_permutation,
    _permutation,
    batch_shares,
)

ONE_TO_THREE = st.integers(1, 3)


@st.composite
def streams(draw, world=ONE_TO_THREE):
    count = draw(st.integers(1, 5))
    return Stream(
        sizes=tuple(draw(st.lists(st.integers(1, 40), min_size=count, max_size=count))),
        batch_sizes=tuple(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))),
        per_batch=draw(st.integers(1, count)),
        seed=draw(st.integers(0, 1000)),
        world=draw(world),
    )


def on_rank(stream, rank):
    return Stream(
        stream.sizes, stream.batch_sizes, stream.per_batch, stream.seed, rank, stream.world
    )


def rows_in_order(stream, dataset, rounds):
    """Rows of a dataset as all ranks together take them, round by round."""
    rows = []
    for number in range(rounds):
        for rank in range(stream.world):
            steps = range(stream.micro_batches_per_round)
            for place in steps:
                step = number * len(steps) + place
                for one in on_rank(stream, rank).micro_batch(step):
                    if one.dataset == dataset:
                        rows.extend(one.rows.tolist())
    return rows


@settings(deadline=None, max_examples=60)
@given(streams(), st.integers(0, 200))
def test_a_round_holds_every_dataset_once_with_its_batch_size(stream, number):
    steps = stream.micro_batches_per_round
    batches = [stream.micro_batch(number * steps + place) for place in range(steps)]
    draws = [one for batch in batches for one in batch]
    assert sorted(one.dataset for one in draws) == list(range(len(stream.sizes)))
    assert all(len(one.rows) == stream.batch_sizes[one.dataset] == one.valid for one in draws)
    assert all(len(batch) <= stream.per_batch for batch in batches)
    for one in draws:
        assert ((one.rows >= 0) & (one.rows < stream.sizes[one.dataset])).all()


@settings(deadline=None, max_examples=60)
@given(streams(), st.integers(0, 5000))
def test_a_micro_batch_is_a_pure_function_of_its_number(stream, step):
    first = stream.micro_batch(step)
    _permutation.cache_clear()
    stream.micro_batch(step + 1)  # what was asked before must not matter
    again = on_rank(stream, stream.rank).micro_batch(step)
    assert [one.dataset for one in first] == [one.dataset for one in again]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.seeds, other.seeds)


@settings(deadline=None, max_examples=40)
@given(streams())
def test_each_pass_takes_every_sample_once_over_all_ranks_together(stream):
    for dataset, size in enumerate(stream.sizes):
        per_round = stream.batch_sizes[dataset] * stream.world
        rows = rows_in_order(stream, dataset, -(-3 * size // per_round))
        for lap in range(3):
            assert sorted(rows[lap * size : (lap + 1) * size]) == list(range(size))


@settings(deadline=None, max_examples=40)
@given(streams(world=st.integers(2, 4)), st.integers(0, 30))
def test_ranks_train_on_the_same_datasets_and_on_different_samples(stream, step):
    batches = [on_rank(stream, rank).micro_batch(step) for rank in range(stream.world)]
    assert len({tuple(one.dataset for one in batch) for batch in batches}) == 1
    for draws in zip(*batches, strict=True):
        taken = Counter(row for one in draws for row in one.rows.tolist())
        size, wanted = stream.sizes[draws[0].dataset], sum(len(one.rows) for one in draws)
        # Twice within a round only where a pass ends in it, or the dataset is smaller than it.
        assert max(taken.values()) <= -(-wanted // size) + 1
        seeds = [seed for one in draws for seed in one.seeds.tolist()]
        assert len(set(seeds)) == len(seeds)


def test_ranks_are_disjoint_within_a_pass():
    stream = Stream((1000,), (10,), 1, seed=5, world=4)
    taken = [on_rank(stream, rank).micro_batch(3)[0].rows for rank in range(4)]
    assert len(np.unique(np.concatenate(taken))) == 40


def test_passes_differ_and_so_do_seeds_and_datasets():
    stream = Stream((50, 50), (50, 50), 2, seed=1)
    first, second = stream.micro_batch(0), stream.micro_batch(1)
    assert not np.array_equal(first[0].rows, second[0].rows)
    assert not np.array_equal(first[0].rows, first[1].rows)
    other = Stream((50, 50), (50, 50), 2, seed=2).micro_batch(0)
    assert not np.array_equal(first[0].rows, other[0].rows)
    assert not np.intersect1d(first[0].seeds, second[0].seeds).size
    assert not np.intersect1d(first[0].seeds, other[0].seeds).size


def test_the_order_of_datasets_within_a_round_changes_from_round_to_round():
    stream = Stream((9,) * 6, (1,) * 6, 1, seed=0)
    rounds = [
        tuple(stream.micro_batch(number * 6 + place)[0].dataset for place in range(6))
        for number in range(20)
    ]
    assert len(set(rounds)) > 15


def test_the_start_of_a_run_with_a_million_samples_takes_no_lists():
    stream = Stream((1_000_000,), (16,), 1, seed=0)
    order = _permutation(0, 0, 0, 1_000_000)
    assert order.nbytes == 8_000_000
    np.testing.assert_array_equal(stream.micro_batch(7)[0].rows, order[112:128])


def test_a_resumed_epoch_continues_where_it_stopped_and_keeps_its_end():
    stream = Stream((23, 8), (4, 2), 1, seed=3)
    whole = list(TrainSampler(stream, 10, lambda: 20))
    rest = list(TrainSampler(stream, 10, lambda: 26))
    assert [draws[0].step for draws in whole] == list(range(20, 30))
    assert [draws[0].step for draws in rest] == list(range(26, 30))
    for draws, again in zip(whole[6:], rest, strict=True):
        np.testing.assert_array_equal(draws[0].rows, again[0].rows)


@settings(max_examples=100)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    batch=st.integers(1, 8),
    world=st.integers(1, 4),
)
def test_a_sweep_counts_every_sample_exactly_once_over_all_ranks(sizes, batch, world):
    sweeps = [list(SweepSampler(tuple(sizes), batch, rank, world)) for rank in range(world)]
    assert len({len(sweep) for sweep in sweeps}) == 1  # ranks stay in step
    counted = Counter()
    for steps in zip(*sweeps, strict=True):
        assert len({one.dataset for (one,) in steps}) == 1
        assert len({len(one.rows) for (one,) in steps}) == 1
        for (one,) in steps:
            assert len(one.rows) <= batch
            assert ((one.rows >= 0) & (one.rows < sizes[one.dataset])).all()
            counted.update((one.dataset, row) for row in one.rows[: one.valid].tolist())
    expected = {(dataset, row) for dataset, size in enumerate(sizes) for row in range(size)}
    assert counted == Counter(expected)


def test_a_sweep_pads_only_ranks_that_lack_samples():
    valid = [
        [draws[0].valid for draws in SweepSampler((5,), 2, rank, world=3)] for rank in range(3)
    ]
    assert valid == [[2], [2], [1]]
    (draws,) = SweepSampler((1,), 4, rank=1, world=2)
    assert (draws[0].valid, len(draws[0].rows)) == (0, 1)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=8),
    st.integers(1, 40),
    st.floats(0, 2),
)
def test_a_round_holds_as_many_images_however_it_is_shared(sizes, usual, power):
    shares = batch_shares(sizes, usual, [None] * len(sizes), power)
    assert sum(shares) == usual * len(sizes)
    assert min(shares) >= 1
    by_size = [share for _, share in sorted(zip(sizes, shares, strict=True))]
    assert by_size == sorted(by_size)


def test_shares_are_uniform_proportional_tempered_or_given():
    sizes = (100, 400, 1600)
    assert batch_shares(sizes, 14, [None] * 3, 0) == (14, 14, 14)
    assert batch_shares(sizes, 14, [None] * 3, 1) == (2, 8, 32)
    assert batch_shares(sizes, 14, [None] * 3, 0.5) == (6, 12, 24)
    assert batch_shares(sizes, 14, [None, 5, None], 1) == (2, 5, 26)
    assert batch_shares((1, 10**6), 8, [None] * 2, 1) == (1, 15)


def classes_of(*counts):
    """Rows of each class, mixed."""
    order = np.random.default_rng(0).permutation(sum(counts))
    return tuple(np.sort(part) for part in np.split(order, np.cumsum(counts)[:-1]))


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    batch=st.integers(1, 7),
    world=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_balanced_classes_come_equally_often_and_each_in_passes_of_its_own(
    counts, batch, world, seed
):
    classes = (classes_of(*counts),)
    stream = Stream((sum(counts),), (batch,), 1, seed, world=world, classes=classes)
    rounds = 3 * max(counts) * len(counts) // (batch * world) + 1
    rows = []
    for number in range(rounds):
        for rank in range(world):
            rows.extend(replace(stream, rank=rank).micro_batch(number)[0].rows.tolist())
    label = {row: at for at, members in enumerate(classes[0]) for row in members.tolist()}
    seen = Counter(label[row] for row in rows)
    assert max(seen.values()) - min(seen.values()) <= 1
    for at, members in enumerate(classes[0]):
        members_drawn = [row for row in rows if label[row] == at]
        for lap in range(len(members_drawn) // len(members)):
            taken = members_drawn[lap * len(members) : (lap + 1) * len(members)]
            assert sorted(taken) == members.tolist()


def test_a_balanced_micro_batch_is_a_pure_function_of_its_number_and_leaves_others_alone():
    classes = classes_of(3, 30)
    plain = Stream((33, 20), (4, 4), 2, seed=1)
    stream = replace(plain, classes=(classes, ()))
    expected = [stream.micro_batch(step)[0].rows.tolist() for step in range(12)]
    _class_permutation.cache_clear()
    again = {step: stream.micro_batch(step)[0].rows.tolist() for step in reversed(range(12))}
    assert [again[step] for step in range(12)] == expected
    for step in range(12):
        other, same = stream.micro_batch(step)[1], plain.micro_batch(step)[1]
        np.testing.assert_array_equal(other.rows, same.rows)
        np.testing.assert_array_equal(other.seeds, same.seeds)


def test_the_order_of_a_stream_does_not_change_between_versions():
    stream = Stream((7, 12, 5), (2, 3, 1), 2, seed=4, rank=1, world=2)
    draws = [
        (one.dataset, one.rows.tolist()) for step in (0, 1, 8) for one in stream.micro_batch(step)
    ]
    assert draws == [(1, [10, 6, 9]), (2, [3]), (0, [0, 5]), (0, [5, 3]), (2, [2])]
