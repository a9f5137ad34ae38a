"""Batches in shared memory: the same bytes, and no buffer is filled while a batch lies in it."""

import numpy as np
import pytest
import torch

from datamodules.stream import loading
from datamodules.stream.loading import StoreView, make_loader
from datamodules.stream.sampling import Stream, SweepSampler, TrainSampler
from datamodules.stream.transforms import Transform
from tests.support.small_stores import TASKS, small_store

SIZE, LENGTH = 16, 24


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    store = small_store(tmp_path_factory.mktemp("stores") / "s.h5", 20, SIZE)
    return StoreView("s", store, np.arange(20), Transform(SIZE, TASKS))


def loader_of(view, workers):
    stream = Stream((len(view),), (4,), 1, 0)
    return make_loader([view], TrainSampler(stream, LENGTH, lambda: 0), SIZE, workers)


@pytest.fixture(scope="module")
def expected(view):
    return list(loader_of(view, 0))


def assert_same(batches, expected):
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.images, other.images)
        targets, others = batch.parts[0].targets, other.parts[0].targets
        assert torch.equal(targets["area"], others["area"])
        assert torch.equal(targets["objects"].boxes, others["objects"].boxes)


def test_batches_that_are_kept_have_each_its_own_memory_however_many(view, expected):
    kept = list(loader_of(view, 1))
    assert len({batch.images.data_ptr() for batch in kept}) == LENGTH
    assert_same(kept, expected)


def test_the_memory_of_batches_that_are_gone_is_used_again(view):
    loader = loader_of(view, 1)
    places = [{batch.images.data_ptr() for batch in loader} for _ in range(2)]
    buffers = loader.dataset.buffers.each
    assert all(len(seen) <= buffers < LENGTH for seen in places)
    assert len(places[0] | places[1]) <= buffers  # also in the next epoch


def test_a_buffer_stays_taken_as_long_as_any_tensor_of_its_batch_lives(view, expected):
    batches = iter(loader_of(view, 1))
    target = next(batches).parts[0].targets["area"][1:]
    assert len(list(map(id, batches))) == LENGTH - 1
    assert torch.equal(target, expected[0].parts[0].targets["area"][1:])


def test_new_processes_get_new_memory_and_a_batch_outlives_its_loader(view, expected):
    loader = loader_of(view, 1)
    first = next(iter(loader))
    loader._iterator._shutdown_workers()  # as Lightning does after a validation
    loader._iterator = None
    assert_same(loader, expected)
    del loader
    assert_same([first], expected[:1])


def test_a_batch_that_does_not_fit_into_a_buffer_arrives_all_the_same(view, expected, monkeypatch):
    monkeypatch.setattr(loading, "_OTHER_BYTES", -(SIZE**2))  # enough for the images alone
    monkeypatch.setattr("mmap.PAGESIZE", 1)
    assert_same(loader_of(view, 1), expected)


def test_images_without_any_object_arrive_with_empty_boxes(tmp_path):
    store = small_store(tmp_path / "s.h5", 20, SIZE)
    empty = np.flatnonzero(store.object_counts("objects") == 0)
    view = StoreView("s", store, empty, Transform(SIZE, TASKS))
    (batch,) = make_loader([view], SweepSampler((len(empty),), len(empty)), SIZE, 1)
    assert batch.parts[0].targets["objects"].boxes.shape == (0, 4)
