"""The HDF5 store: what goes in comes out, everywhere, and nothing unfinished stays."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from datamodules.core.errors import LayoutError, StoreError
from datamodules.core.records import SPLITS
from datamodules.store.reader import Store
from datamodules.store.writer import write_store
from tests.support.small_stores import (
    TASKS,
    make_patch,
    make_record,
    small_store,
    sums_of,
    write_forever,
)

COUNT, SIDE = 150, 16  # more patches than are written at a time


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("stores") / "small.h5", COUNT, SIDE)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "packed.h5"
    return small_store(path, COUNT, SIDE, compressed=True)


@pytest.fixture(params=["raw", "packed"])
def store(request):
    return request.getfixturevalue(request.param)


def test_pixels_and_targets_come_back_as_they_went_in(store):
    rows = np.random.default_rng(0).permutation(COUNT)
    images, masks = store.images(rows), store.masks("area", rows)
    for place, row in enumerate(rows):
        patch = make_patch(int(row), SIDE)
        np.testing.assert_array_equal(images[place], patch.image)
        np.testing.assert_array_equal(masks[place], patch.targets["area"])
        np.testing.assert_array_equal(store.target("signs")[row], patch.targets["signs"])
        assert store.target("kind")[row] == patch.targets["kind"]
        assert store.target("score")[row] == np.float32(patch.targets["score"])
        boxes = store.boxes("objects", int(row))
        np.testing.assert_array_equal(boxes.xyxy, patch.targets["objects"].xyxy)
        np.testing.assert_array_equal(boxes.labels, patch.targets["objects"].labels)


def test_splits_groups_sources_and_tasks_come_back(store):
    assert len(store) == COUNT
    assert store.tasks == TASKS
    assert (store.side, store.mpp, store.synthetic) == (SIDE, 0.5, True)
    for row in range(0, COUNT, 7):
        record = make_record(row)
        assert SPLITS[store.split[row]] == record.split
        assert store.group_names[store.group[row]] == record.group
        assert store.source(row) == record.source


def test_plain_h5py_reads_the_same(raw):
    store = raw
    with h5py.File(store.path, "r") as file:
        np.testing.assert_array_equal(file["images"][:], store.images(range(COUNT)))
        np.testing.assert_array_equal(file["targets/area"][:], store.masks("area", range(COUNT)))
        np.testing.assert_array_equal(file["targets/kind"][:], store.target("kind"))
        np.testing.assert_array_equal(file["targets/score"][:], store.target("score"))
        assert file["xy"][5].tolist() == [5, 10]
        first, last = file["boxes/objects/offsets"][7:9]
        expected = store.boxes("objects", 7).xyxy
        np.testing.assert_array_equal(file["boxes/objects/xyxy"][first:last], expected)
        assert file["images"].chunks == (1, SIDE, SIDE, 3)
        assert file["images"].compression is None


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_the_same(store, method):
    rows = [0, 77, 149, 3]
    expected = sums_of(store, rows)  # opens the file here, before the worker starts
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(sums_of, store, rows).result() == expected


def test_a_pickled_store_holds_no_pixels_and_no_open_file(store):
    store.images([0])
    pickled = pickle.dumps(store)
    assert len(pickled) < store.path.stat().st_size / 4
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again.images([9, 4]), store.images([9, 4]))


OPEN_FILES = Path("/proc/self/fd")


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="needs /proc to count open files")
def test_a_hundred_opened_stores_leave_no_open_file(store):
    before = len(list(OPEN_FILES.iterdir()))
    for _ in range(100):
        Store(store.path).images([1])
    assert len(list(OPEN_FILES.iterdir())) <= before + 1


def test_a_compressed_store_holds_encoded_pixels_and_has_the_same_digest(raw, packed):
    assert packed.digest == raw.digest
    with h5py.File(packed.path) as file:
        first, second = file["offsets/images"][:2]
        pixels = cv2.imdecode(file["images"][first:second], cv2.IMREAD_COLOR_RGB)
        assert file["images"][first + 8 : first + 12].tobytes() == b"WEBP"
    np.testing.assert_array_equal(pixels, raw.images([0])[0])


def test_a_damaged_patch_of_a_compressed_store_is_named(tmp_path):
    path = small_store(tmp_path / "hurt.h5", compressed=True).path
    with h5py.File(path, "r+") as file:
        first, second = file["offsets/images"][3:5]
        file["images"][first:second] = 0
    with pytest.raises(StoreError, match=r"hurt\.h5: patch 3 of 'images' is damaged"):
        Store(path).images([2, 3])


def test_the_digest_tells_contents_apart_and_not_files(tmp_path):
    first, same = small_store(tmp_path / "a.h5", 9), small_store(tmp_path / "b.h5", 9)
    shorter = small_store(tmp_path / "c.h5", 8)
    assert first.digest == same.digest
    assert first.digest != shorter.digest


@pytest.mark.parametrize("share", [0.05, 0.5, 0.999])
def test_a_truncated_store_is_refused(tmp_path, share):
    path = small_store(tmp_path / "cut.h5").path
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(StoreError, match=r"cut\.h5.*datasets prepare"):
        Store(path)


def test_a_store_cut_short_after_it_was_opened_is_noticed(tmp_path):
    store = small_store(tmp_path / "cut.h5")
    with h5py.File(store.path) as file:
        last = int(file["offsets/images"][-1])
    os.truncate(store.path, last + 5)
    with pytest.raises(StoreError, match="cut short since it was opened"):
        store.images([len(store) - 1])


def test_a_store_that_is_replaced_while_it_is_used_is_never_read_as_the_older_one(tmp_path):
    older = small_store(tmp_path / "a.h5", 9)
    images = older.images([3])
    fresh = pickle.loads(pickle.dumps(older))  # as another process gets it
    small_store(tmp_path / "a.h5", 12)
    np.testing.assert_array_equal(older.images([3]), images)  # its file is still open
    pixels = [lambda: fresh.images([3])] * 2
    for read in (*pixels, lambda: fresh.group_names, lambda: fresh.sources([3])):
        with pytest.raises(StoreError, match=r"a\.h5: replaced"):
            read()


def test_a_store_of_another_schema_is_refused(tmp_path):
    path = small_store(tmp_path / "old.h5").path
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 0
    with pytest.raises(StoreError, match=r"old\.h5: schema version 0"):
        Store(path)


def test_a_file_that_is_no_store_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(StoreError, match=r"other\.h5: schema version none"):
        Store(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(StoreError, match=r"text\.h5: not a readable HDF5 store"):
        Store(tmp_path / "text.h5")
    with pytest.raises(StoreError, match=r"gone\.h5: no such store"):
        Store(tmp_path / "gone.h5")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_nothing(tmp_path, error):
    with (
        pytest.raises(error),
        write_store(tmp_path / "new.h5", TASKS, SIDE, {"synthetic": True}) as writer,
    ):
        for number in range(100):
            writer.add(make_record(number), [make_patch(number, SIDE)])
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_the_older_store(tmp_path):
    older = small_store(tmp_path / "kept.h5", 7)
    with (
        pytest.raises(RuntimeError),
        write_store(older.path, TASKS, SIDE, {"synthetic": True}) as writer,
    ):
        writer.add(make_record(0), [make_patch(0, SIDE)])
        raise RuntimeError
    assert len(Store(older.path)) == 7


def test_a_killed_writer_leaves_no_store_and_the_next_one_succeeds(tmp_path):
    path = tmp_path / "killed.h5"
    process = multiprocessing.get_context("fork").Process(target=write_forever, args=(path,))
    process.start()
    partial = path.with_name(".killed.h5.partial")
    until = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size > 1_000_000):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.raises(StoreError, match="no such store"):
        Store(path)
    assert len(small_store(path, 5)) == 5
    assert not partial.exists()


def test_a_reader_never_sees_a_half_written_store(tmp_path):
    path, seen, done = tmp_path / "live.h5", [], threading.Event()

    def look():
        while not done.is_set():
            if path.exists():
                seen.append(len(Store(path)))

    watcher = threading.Thread(target=look)
    watcher.start()
    small_store(path, 20)
    small_store(path, 30)
    until = time.monotonic() + 30
    while 30 not in seen and time.monotonic() < until:
        time.sleep(0.01)
    done.set()
    watcher.join()
    assert set(seen) - {20} == {30}


@pytest.mark.parametrize("name", ["images", "targets/area"])
def test_a_disk_that_returns_other_pixels_than_were_written_is_noticed(tmp_path, name):
    path = tmp_path / "a.h5"
    with write_store(path, TASKS, SIDE, {"synthetic": True}) as writer:
        writer.add(make_record(0), [make_patch(0, SIDE)])
    writer.check(Store(path))
    with h5py.File(path, "r+") as file:
        file[name][0, 0, 0] ^= 1
    with pytest.raises(StoreError, match="does not return what was written"):
        writer.check(Store(path))


def test_a_source_that_occurs_twice_is_refused(tmp_path):
    with (
        pytest.raises(LayoutError, match=r"images/3\.png: occurs twice"),
        write_store(tmp_path / "twice.h5", TASKS, SIDE, {"synthetic": True}) as writer,
    ):
        for number in (3, 4, 3):
            writer.add(make_record(number), [make_patch(number, SIDE)])
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_any_image_is_refused(tmp_path):
    with (
        pytest.raises(LayoutError, match="no labelled image"),
        write_store(tmp_path / "none.h5", TASKS, SIDE, {"synthetic": True}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
