"""Micro-batches: the same from any number of workers, and a resumed stream goes on."""

import numpy as np
import pytest
import torch

from datamodules.config import AugmentationConfig
from datamodules.core.errors import ConfigError
from datamodules.store.class_balance import rows_by_class
from datamodules.stream.batch import DetectionTarget
from datamodules.stream.loading import StoreView, make_loader
from datamodules.stream.sampling import Stream, SweepSampler, TrainSampler
from datamodules.stream.transforms import Transform
from tests.support.small_stores import TASKS, make_patch, small_store

SIZE = 12


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    views = []
    for name, count, side in (("first", 20, 16), ("second", 9, 24)):
        store = small_store(folder / f"{name}.h5", count, side)
        transform = Transform(SIZE, TASKS, AugmentationConfig())
        views.append(StoreView(name, store, np.arange(1, count), transform))
    return views


def train_loader(views, workers, position=0, per_batch=2, length=12):
    sizes = tuple(len(view) for view in views)
    stream = Stream(sizes, (4, 3), per_batch, seed=11)
    return make_loader(views, TrainSampler(stream, length, lambda: position), SIZE, workers)


def assert_same(one, other):
    assert one.step == other.step
    assert torch.equal(one.images, other.images)
    for part, again in zip(one.parts, other.parts, strict=True):
        assert (part.dataset, part.start, part.stop) == (again.dataset, again.start, again.stop)
        assert torch.equal(part.index, again.index) and part.valid == again.valid
        for name, target in part.targets.items():
            same = again.targets[name]
            if isinstance(target, DetectionTarget):
                assert torch.equal(target.boxes, same.boxes)
                assert torch.equal(target.labels, same.labels)
                assert torch.equal(target.image, same.image)
            else:
                assert torch.equal(target, same)


def test_two_workers_give_the_same_batches_as_none(views):
    alone, helped = list(train_loader(views, 0)), list(train_loader(views, 2))
    assert len(alone) == len(helped) == 12
    for one, other in zip(alone, helped, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("per_batch", [1, 2])
def test_a_resumed_stream_continues_with_the_next_batch(views, per_batch):
    whole = list(train_loader(views, 0, per_batch=per_batch))
    rest = list(train_loader(views, 0, position=5, per_batch=per_batch))
    assert len(rest) == len(whole) - 5
    for one, other in zip(whole[5:], rest, strict=True):
        assert_same(one, other)


def test_a_loader_started_twice_gives_the_epoch_again_from_its_position(views):
    loader = train_loader(views, 2)
    for one, other in zip(list(loader), list(loader), strict=True):
        assert_same(one, other)


def test_a_loader_leaves_the_random_state_alone(views):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    list(train_loader(views, 2, length=2))
    assert torch.equal(state, torch.get_rng_state())


def test_a_batch_is_one_contiguous_tensor_with_a_slice_for_each_dataset(views):
    batch = next(iter(train_loader(views, 0)))
    assert batch.images.shape == (7, SIZE, SIZE, 3)
    assert batch.images.dtype == torch.uint8 and batch.images.is_contiguous()
    assert batch.images.permute(0, 3, 1, 2).is_contiguous(memory_format=torch.channels_last)
    assert [(part.dataset, part.start, part.stop) for part in batch.parts] == [
        ("first", 0, 4),
        ("second", 4, 7),
    ]
    for part in batch.parts:
        kinds = {name: tuple(t.shape) for name, t in part.targets.items() if name != "objects"}
        n = len(part)
        assert kinds == {"kind": (n,), "score": (n,), "signs": (n, 4), "area": (n, SIZE, SIZE)}
        assert part.targets["kind"].dtype == torch.int64
        assert part.targets["area"].dtype == torch.uint8
        assert part.targets["score"].dtype == part.targets["signs"].dtype == torch.float32
        objects = part.targets["objects"]
        assert objects.boxes.dtype == torch.float32 and objects.boxes.shape[1:] == (4,)
        assert objects.image.tolist() == sorted(objects.image.tolist())


def test_a_sweep_yields_every_patch_unchanged_with_its_own_targets(tmp_path):
    store = small_store(tmp_path / "plain.h5", 10, SIZE)
    view = StoreView("plain", store, np.arange(10), Transform(SIZE, TASKS))
    seen = []
    for batch in make_loader([view], SweepSampler((10,), 4), SIZE, 0):
        (part,) = batch.parts
        objects = part.targets["objects"]
        for place, row in enumerate(part.index.tolist()[: part.valid]):
            patch = make_patch(row, SIZE)
            np.testing.assert_array_equal(batch.images[place].numpy(), patch.image)
            np.testing.assert_array_equal(part.targets["area"][place], patch.targets["area"])
            assert part.targets["kind"][place] == patch.targets["kind"]
            assert part.targets["score"][place] == np.float32(patch.targets["score"])
            np.testing.assert_array_equal(part.targets["signs"][place], patch.targets["signs"])
            of_image = objects.image == place
            expected = patch.targets["objects"].xyxy
            np.testing.assert_allclose(objects.boxes[of_image], expected, rtol=1e-6)
            np.testing.assert_array_equal(objects.labels[of_image], patch.targets["objects"].labels)
            seen.append(row)
    assert seen == list(range(10))


def test_an_image_taken_twice_is_augmented_differently(views):
    seen = {}
    for batch in train_loader(views, 0, length=12):
        part = batch.parts[1]
        for place, row in enumerate(part.index.tolist()):
            seen.setdefault(row, []).append(batch.images[part.start + place].numpy().tobytes())
    assert all(len(set(copies)) == len(copies) > 1 for copies in seen.values())


@pytest.mark.parametrize(
    ("task", "class_of"), [("kind", lambda n: n % 3), ("objects", lambda n: n % 4 > 0)]
)
def test_balancing_draws_every_class_equally_often_from_a_store(tmp_path, task, class_of):
    store = small_store(tmp_path / "s.h5", 20, 16)
    rows = np.array([1, 3, 4, 5, 6, 8, 9, 10, 13, 17, 19])
    classes = rows_by_class(store, rows, task, "s")
    view = StoreView("s", store, rows, Transform(SIZE, TASKS))
    stream = Stream((len(rows),), (6,), 1, seed=0, classes=(classes,))
    seen = []
    for batch in make_loader([view], TrainSampler(stream, 6, lambda: 0), SIZE, 0):
        seen.extend(class_of(number) for number in batch.parts[0].index.tolist())
    assert len(set(np.unique(seen, return_counts=True)[1])) == 1
    assert len(set(seen)) == len(classes) == len({class_of(number) for number in rows.tolist()})


def test_balancing_by_a_task_without_classes_is_refused(tmp_path):
    store = small_store(tmp_path / "s.h5", 4, 16)
    assert rows_by_class(store, np.arange(4), "", "s") == ()
    with pytest.raises(
        ConfigError, match=r"data\.train\.s\.balance.*'score'; known: kind, objects"
    ):
        rows_by_class(store, np.arange(4), "score", "s")
