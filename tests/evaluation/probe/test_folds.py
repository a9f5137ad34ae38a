"""Subsets are nested, paired, stratified and grouped; test groups are never trained on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.probe.folds import (
    Fold,
    groups_of_role,
    make_folds,
    nested_order,
    seed_from,
    strata_of,
    subset,
    subset_sizes,
)

CLASSIFICATION, REGRESSION = TaskKind.CLASSIFICATION, TaskKind.REGRESSION
NO_SPLIT = np.zeros


@st.composite
def pools(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 80))
    strata = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 4)))
    groups = draw(hnp.arrays(np.int32, n, elements=st.integers(0, 12)))
    return strata, groups


@given(pools(), st.integers(0, 2**32 - 1))
def test_an_order_is_a_permutation_with_nested_prefixes(
    pool: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    order = nested_order(*pool, seed)
    assert sorted(order) == list(range(len(order)))
    small, large = subset(order, 10), subset(order, 30)
    assert set(small) <= set(large)
    assert (np.diff(large) > 0).all()
    np.testing.assert_array_equal(order, nested_order(*pool, seed))


@given(pools(), st.integers(0, 2**32 - 1))
def test_every_class_is_included_once_there_are_as_many_labels_as_classes(
    pool: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    strata = pool[0]
    classes = set(strata)
    order = nested_order(*pool, seed)
    for n in range(1, len(strata) + 1):
        assert len(set(strata[order[:n]])) >= min(n, len(classes))


@given(pools(), st.integers(0, 2**32 - 1))
def test_groups_take_turns_within_a_stratum(pool: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    strata, groups = pool
    order = nested_order(strata, groups, seed)
    for stratum in set(strata):
        given_by: dict[int, int] = dict.fromkeys(groups[strata == stratum].tolist(), 0)
        holds = {g: int(((strata == stratum) & (groups == g)).sum()) for g in given_by}
        for row in order[strata[order] == stratum]:
            group = int(groups[row])
            for other, count in given_by.items():
                assert count >= given_by[group] or count == holds[other]
            given_by[group] += 1


def test_larger_subsets_follow_the_shares_of_the_pool() -> None:
    strata = np.repeat([0, 1, 2], [700, 250, 50])
    order = nested_order(strata, np.arange(1000, dtype=np.int32), 0)
    for n in (20, 100, 400, 999):
        counts = np.bincount(strata[order[:n]], minlength=3)
        np.testing.assert_allclose(counts, n * np.array([0.7, 0.25, 0.05]), atol=1.5)


def test_few_labels_come_from_many_patients() -> None:
    groups = np.repeat(np.arange(20, dtype=np.int32), [400] + [5] * 19)
    order = nested_order(np.zeros(len(groups), np.int64), groups, 3)
    assert len(set(groups[order[:20]])) == 20


def test_regression_strata_are_fifths_and_ties_stay_together() -> None:
    targets = np.linspace(0, 1, 100, dtype=np.float32)
    np.testing.assert_array_equal(np.bincount(strata_of(REGRESSION, targets)), [20] * 5)
    mostly_zero = np.r_[np.zeros(90), np.linspace(0.1, 1, 10)].astype(np.float32)
    strata = strata_of(REGRESSION, mostly_zero)
    assert len(set(strata[:90])) == 1
    assert strata_of(REGRESSION, np.ones(7, np.float32)).max() == 0


@given(pools(), st.integers(2, 6), st.integers(0, 1000))
@example((np.arange(3), np.arange(3, dtype=np.int32)), 2, 0)  # one image of each class
def test_folds_test_every_image_once_and_never_share_a_group(
    pool: tuple[np.ndarray, np.ndarray], count: int, seed: int
) -> None:
    targets, groups = pool
    if len(set(groups.tolist())) < 2:
        with pytest.raises(ProbeError, match="one group"):
            make_folds("d", CLASSIFICATION, targets, groups, NO_SPLIT(len(groups)), count, seed)
        return
    folds = make_folds("d", CLASSIFICATION, targets, groups, NO_SPLIT(len(groups)), count, seed)
    assert len(folds) == min(count, len(set(groups.tolist())))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([fold.test for fold in folds])), np.arange(len(groups))
    )
    for fold in folds:
        assert len(fold.test) > 0
        assert set(groups[fold.pool]).isdisjoint(groups[fold.test])
        assert len(fold.pool) + len(fold.test) == len(groups)


def test_three_patients_in_three_folds_are_each_held_out_once() -> None:
    groups = np.repeat(np.array([7, 3, 5], np.int32), 10)
    targets = np.tile([0, 1], 15)
    for count in (3, 10):
        folds = make_folds("idc", CLASSIFICATION, targets, groups, NO_SPLIT(30), count, 0)
        assert [set(groups[fold.test]) for fold in folds] == [{3}, {5}, {7}]
        assert [fold.number for fold in folds] == [1, 2, 3]


def test_the_official_split_trains_on_train_and_val_and_tests_on_test() -> None:
    split = np.array([0, 1, 2, 2, 0], np.uint8)
    groups = np.arange(5, dtype=np.int32)
    (fold,) = make_folds("d", CLASSIFICATION, np.zeros(5, int), groups, split, 0, 0)
    assert (fold.number, fold.pool.tolist(), fold.test.tolist()) == (0, [0, 1, 4], [2, 3])


@pytest.mark.parametrize(
    ("split", "groups", "folds", "message"),
    [
        ([0, 0, 0], [0, 1, 2], 0, "no test images; set data.unseen.d.folds"),
        ([2, 2, 2], [0, 1, 2], 0, "none can carry labels"),
        ([0, 2, 2], [0, 0, 1], 0, "1 groups are on both sides"),
        ([0, 0, 0], [4, 4, 4], 3, "one group"),
        ([0, 0, 0], [0, 1, 2], 1, "use 2 folds or more"),
        ([0, 0, 0], [0, 1, 2], -1, "folds is -1"),
    ],
)
def test_without_a_group_disjoint_test_set_the_error_names_a_remedy(
    split: list[int], groups: list[int], folds: int, message: str
) -> None:
    with pytest.raises(ProbeError, match=message):
        make_folds(
            "d",
            CLASSIFICATION,
            np.zeros(3, np.int64),
            np.array(groups, np.int32),
            np.array(split, np.uint8),
            folds,
            0,
        )


def fold_with(pool: int) -> Fold:
    return Fold(1, np.arange(pool), np.arange(pool, pool + 2))


def test_sizes_beyond_the_smallest_pool_become_all_of_it_once() -> None:
    folds = [fold_with(120), fold_with(98)]
    assert subset_sizes([10, 30, 100, 300, 0], folds) == [10, 30, 0]
    assert subset_sizes([300, 1000], folds) == [0]
    assert subset_sizes([30, 10, 10], folds) == [10, 30]


def test_a_seed_depends_only_on_its_parts() -> None:
    assert seed_from(0, "idc", 1, 2) == seed_from(0, "idc", 1, 2)
    others = {seed_from(*parts) for parts in [(0, "idc", 1, 2), (0, "idc", 12), (1, "idc", 1, 2)]}
    assert len(others) == 3


def test_each_group_is_in_one_half_and_every_dataset_agrees_on_it() -> None:
    patients = [str(number) for number in range(8863, 9063)]
    develop, report = (groups_of_role(patients, role) for role in ("develop", "report"))
    assert (develop ^ report).all() and 80 < develop.sum() < 120
    assert groups_of_role(patients, "all").all()
    backwards = groups_of_role(patients[::-1], "report")[::-1]
    np.testing.assert_array_equal(backwards, report)
    # These must never change: settings were chosen without looking at the report half.
    assert groups_of_role(["14082", "14306", "8975"], "report").tolist() == [True, True, False]
