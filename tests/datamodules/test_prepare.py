"""Preparing: the same store from any number of processes, once, and again when data change."""

import hashlib
import json
import logging
import multiprocessing
import os
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datamodules.checks.verify import verify
from datamodules.config import Compression, DataConfig, DatasetConfig
from datamodules.core.errors import ImageError
from datamodules.formats.images import write_image
from datamodules.prepare import is_prepared, prepare
from datamodules.registry import build
from datamodules.store.parallel import in_order


def write_images(root: Path, count: int = 80) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        name = ("benign", "malignant")[number % 2]
        pixels = rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)
        write_image(root / name / f"patient{number // 8:02d}_{number}.png", pixels)


def own_data(root, stores, **data):
    options = {"group": r"^(patient\d+)"}
    config = DatasetConfig(reader="class_folders", folder="own", patch_size=16, options=options)
    return build("own", config, DataConfig(root=str(root), stores=str(stores), **data))


def prepare_in_process(root: Path, stores: Path) -> tuple[bool, str]:
    module = own_data(root, stores)
    done = prepare(module, workers=1)
    return done.written, module.store.digest


@pytest.fixture
def data(tmp_path):
    write_images(tmp_path / "own")
    return tmp_path


def at_work(records: list[float]) -> list[tuple[int, int]]:
    """Work this many seconds per record; return the process and the size of its job."""
    time.sleep(sum(records))
    return [(os.getpid(), len(records))] * len(records)


def test_processes_start_when_there_is_enough_to_do_and_long_records_come_one_by_one():
    long = [found for _, found in in_order(at_work, iter([0.12] * 12), 2)]
    alone = [at_once for process, at_once in long if process == os.getpid()]
    assert alone == [1] * 2  # a fifth of a second of work
    assert {at_once for _, at_once in long} == {1}
    assert len({process for process, _ in long}) == 3
    short = [found for _, found in in_order(at_work, iter([0.0] * 500), 2)]
    assert {process for process, _ in short} == {os.getpid()}


@pytest.fixture
def at_once(monkeypatch):
    """Processes start however little there is to do."""
    monkeypatch.setattr("datamodules.store.parallel.ALONE_S", 0.0)


def counting(records: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.arange(size), np.full(3, size)) for size in records]


@pytest.mark.parametrize("room", [2**26, 2**17])
def test_results_arrive_whole_whether_or_not_they_fit_the_shared_memory(at_once, monkeypatch, room):
    monkeypatch.setattr("datamodules.store.parallel._SLOT_BYTES", room)
    sizes = [1, 40_000, 3, 700, 20_000, *range(1_000, 1_200)]
    results = in_order(counting, iter(sizes), 2)
    for size, (record, (numbers, small)) in zip(sizes, results, strict=True):
        assert record == size
        np.testing.assert_array_equal(numbers, np.arange(size))
        np.testing.assert_array_equal(small, [size] * 3)


def test_one_and_several_processes_write_the_same_store(data, at_once):
    stores = {}
    for workers in (1, 3):
        module = own_data(data, data / f"stores{workers}")
        assert prepare(module, workers).count == 80
        stores[workers] = module.store
    assert stores[1].digest == stores[3].digest
    for row in range(80):
        assert stores[1].source(row) == stores[3].source(row)
    np.testing.assert_array_equal(stores[1].images(range(80)), stores[3].images(range(80)))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_image_among_many_is_named_and_leaves_nothing(data, workers, at_once):
    (data / "own/malignant/patient09_77.png").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"patient09_77\.png"):
        prepare(own_data(data, data / "stores"), workers)
    assert not [p for p in (data / "stores").iterdir() if p.suffix in (".h5", ".partial")]


def test_processes_that_prepare_the_same_store_wait_for_one_another(data):
    with ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
        results = list(pool.map(prepare_in_process, [data] * 3, [data / "stores"] * 3))
    assert sorted(written for written, _ in results) == [False, False, True]
    assert len({digest for _, digest in results}) == 1


def test_a_store_is_written_once_and_again_when_the_data_change(data):
    module = own_data(data, data / "stores")
    assert not is_prepared(module)
    assert prepare(module, 1).written
    assert is_prepared(module)
    assert not prepare(module, 1).written
    before = module.store.digest
    write_image(data / "own/benign/patient00_0.png", np.full((20, 20, 3), 7, np.uint8))
    assert prepare(module, 1).written
    assert module.store.digest != before
    assert (module.store.images([0]) == 7).all()


def test_a_failed_preparation_keeps_the_older_store(data):
    module = own_data(data, data / "stores")
    prepare(module, 1)
    (data / "own/benign/patient00_0.png").write_bytes(b"broken")
    with pytest.raises(ImageError):
        prepare(module, 1)
    assert is_prepared(module)
    assert len(own_data(data, data / "stores").store) == 80


def test_a_store_is_enough_without_the_published_files(data, caplog):
    prepare(own_data(data, data / "stores"), 1)
    (data / "own").rename(data / "moved")
    module = own_data(data, data / "stores")
    with caplog.at_level(logging.INFO):
        assert not prepare(module, 1).written
    assert len(module.store) == 80


def test_other_settings_have_another_store(data):
    one, other = own_data(data, data / "stores"), own_data(data, data / "stores", mpp=1.0)
    assert one.store_path != other.store_path
    assert one.store_path == own_data(data, data / "stores", seed=5).store_path


def test_a_store_under_the_former_name_is_used_and_not_prepared_again(data):
    module = own_data(data, data / "stores")
    # Formerly the file name hashed the path of the reader's class in place of its key.
    settings = {**module.settings(), "reader": "datamodules.class_folders.ClassFolders"}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    former = data / "stores" / f"own-{digest}.h5"
    prepare(module, 1)
    module.store_path.rename(former)

    again = own_data(data, data / "stores")
    done = prepare(again, 1)
    assert (done.path, done.written, again.store.path) == (former, False, former)
    assert [path for path in (data / "stores").glob("*.h5")] == [former]


def test_a_compressed_store_lies_beside_the_raw_one_and_holds_the_same(data):
    modules = [
        own_data(data, data / "stores", compression=compression) for compression in Compression
    ]
    for module in modules:
        assert prepare(module, workers=2).written
    raw, packed = (module.store for module in modules)
    assert raw.path != packed.path
    assert (raw.compressed, packed.compressed) == (False, True)
    assert raw.digest == packed.digest
    assert verify(modules[1]).ok


def test_validation_holds_out_whole_patients_by_the_seed(data):
    rows = {}
    for seed in (0, 1):
        module = own_data(data, data / "stores", seed=seed, val_fraction=0.2)
        prepare(module, 1)
        train, val = module.rows("train"), module.rows("val")
        assert len(train) + len(val) == 80 and len(val) == 16
        groups = np.asarray(module.store.group)
        assert not set(groups[train]) & set(groups[val])
        assert len(module.rows("test")) == 0
        rows[seed] = val.tolist()
    assert rows[0] != rows[1]


def test_a_validation_limit_takes_a_fixed_part(data):
    module = own_data(data, data / "stores", val_fraction=0.5, val_limit=10)
    prepare(module, 1)
    rows = module.rows("val")
    assert len(rows) == len(set(rows.tolist())) == 10
    np.testing.assert_array_equal(rows, module.rows("val"))


def test_a_finished_store_in_a_read_only_folder_is_used(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a read-only folder")
    write_images(tmp_path / "own", 3)
    reader = own_data(tmp_path, tmp_path / "stores")
    prepare(reader, workers=1)
    mount = ["mount", "--bind", "-o", "ro", str(tmp_path / "stores"), str(tmp_path / "stores")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine forbids mounting")
    try:
        assert not prepare(reader, workers=1).written
        assert len(reader.store.images([0])) == 1
    finally:
        del reader.__dict__["store"]  # closes its file, which keeps the mount busy
        subprocess.run(["umount", str(tmp_path / "stores")], check=True)
