"""Held-out validation: whole groups, the wanted share where groups allow it, and every class."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datamodules.core.records import Task, TaskKind
from datamodules.store.reader import Store
from datamodules.store.splits import class_presence, held_out, rows_of_split
from tests.support.small_stores import small_store

CLASSES = 4
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Group and class of each patch."""
    n = draw(st.integers(1, 120))
    groups = draw(hnp.arrays(np.int32, n, elements=st.integers(0, 15)))
    return groups, draw(hnp.arrays(np.int64, n, elements=st.integers(0, CLASSES - 1)))


def presence_of(classes: np.ndarray) -> np.ndarray:
    return classes[:, None] == np.arange(CLASSES)


def share_of(groups: np.ndarray, chosen: np.ndarray) -> float:
    return float(np.isin(groups, chosen).mean())


@given(labelled(), st.floats(0.01, 0.9), SEEDS)
def test_no_group_is_on_two_sides_and_every_patch_is_on_one(data, fraction, seed):
    groups, classes = data
    task = Task("kind", TaskKind.CLASSIFICATION, ("a", "b", "c", "d"))
    store = SimpleNamespace(
        split=np.zeros(len(groups), np.uint8), group=groups, tasks=(task,), target=lambda _: classes
    )
    train, val = (rows_of_split(store, side, fraction, 0, seed) for side in ("train", "val"))
    assert sorted([*train, *val]) == list(range(len(groups)))
    assert not set(groups[train]) & set(groups[val])
    assert len(train)
    assert set(classes[train]) == set(classes)


@given(labelled(), st.floats(0.01, 0.9), SEEDS)
def test_validation_holds_every_class_whose_smallest_spare_group_fits(data, fraction, seed):
    groups, classes = data
    chosen = held_out(groups, presence_of(classes), fraction, seed)
    held = np.isin(groups, chosen)
    room = max(1, round(fraction * len(groups))) - held.sum()
    for label in set(classes) - set(classes[held]):
        for group in set(groups[classes == label]):
            members = groups == group
            rest = set(classes[~held & ~members])
            spare = set(classes[members]) <= rest
            assert not (spare and members.sum() <= room), (label, group)


@given(labelled(), st.floats(0.01, 0.9), SEEDS)
def test_validation_overshoots_for_the_sake_of_a_class_or_of_the_only_group_at_most(
    data, fraction, seed
):
    groups, classes = data
    chosen = held_out(groups, presence_of(classes), fraction, seed)
    wanted = max(1, round(fraction * len(groups)))
    assert np.isin(groups, chosen).sum() <= 2 * wanted or len(chosen) == 1


@given(labelled(), st.floats(0.01, 0.9), SEEDS)
def test_the_choice_follows_from_the_seed_alone(data, fraction, seed):
    groups, classes = data
    first = held_out(groups, presence_of(classes), fraction, seed)
    np.testing.assert_array_equal(first, held_out(groups, presence_of(classes), fraction, seed))
    order = np.random.default_rng(0).permutation(len(groups))
    again = held_out(groups[order], presence_of(classes[order]), fraction, seed)
    np.testing.assert_array_equal(first, again)


def test_a_group_that_overshoots_is_passed_over_for_those_that_fit():
    groups = np.repeat(np.arange(3, dtype=np.int32), [900, 60, 40])
    for seed in range(30):
        chosen = held_out(groups, np.zeros((1000, 0), bool), 0.1, seed)
        assert share_of(groups, chosen) == 0.1


def test_a_rare_class_is_held_out_where_two_groups_have_it_and_kept_where_one_has():
    groups = np.repeat(np.arange(50, dtype=np.int32), 10)
    classes = np.zeros(500, np.int64)
    classes[[5, 255]] = 1  # in two groups
    classes[300] = 2  # in one
    for seed in range(30):
        held = np.isin(groups, held_out(groups, presence_of(classes), 0.1, seed))
        assert held.mean() == 0.1
        assert 1 in classes[held] and 1 in classes[~held]
        assert 2 not in classes[held]


def test_single_images_are_held_out_class_by_class():
    classes = np.random.default_rng(0).choice(4, 5000, p=[0.7, 0.2, 0.09, 0.01])
    groups = np.arange(5000, dtype=np.int32)
    held = np.isin(groups, held_out(groups, presence_of(classes), 0.1, 3))
    assert held.sum() == 500
    shares = np.bincount(classes[held]) / np.bincount(classes)
    np.testing.assert_allclose(shares, 0.1, atol=0.02)


def test_other_seeds_hold_out_other_groups():
    groups = np.repeat(np.arange(40, dtype=np.int32), 5)
    none = np.zeros((200, 0), bool)
    assert len({tuple(held_out(groups, none, 0.1, seed)) for seed in range(20)}) > 10


def test_a_limited_validation_keeps_its_classes_and_is_never_larger():
    classes = np.repeat([0, 1, 2, 3], [997, 1, 1, 1])
    store = SimpleNamespace(
        split=np.ones(1000, np.uint8),
        group=np.arange(1000, dtype=np.int32),
        tasks=(Task("kind", TaskKind.CLASSIFICATION, ("a", "b", "c", "d")),),
        target=lambda _: classes,
    )
    for seed in range(10):
        rows = rows_of_split(store, "val", 0.1, 6, seed)
        assert len(rows) == 6 and set(classes[rows]) == {0, 1, 2, 3}
        assert len(rows_of_split(store, "val", 0.1, 2, seed)) == 2


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("stores") / "small.h5", 20, 16)


def test_classes_are_those_of_labels_signs_and_objects(store):
    found = class_presence(store)
    assert found.shape == (20, 3 + 4 + 2)
    for row, targets in enumerate(store.targets_of(range(20))):
        np.testing.assert_array_equal(found[row, :3], np.arange(3) == targets["kind"])
        np.testing.assert_array_equal(found[row, 3:7], targets["signs"] == 1)
        assert set(np.flatnonzero(found[row, 7:])) == set(targets["objects"].labels)


def test_a_published_validation_stays_as_it_is(store):
    rows = rows_of_split(store, "val", 0.5, 0, 0)
    np.testing.assert_array_equal(rows, np.flatnonzero(store.split == 1))
