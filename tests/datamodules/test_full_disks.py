"""Stores on a disk that is full, read-only or gone: one line, nothing half-written, and on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from datamodules.config import Compression, DataConfig, DatasetConfig
from datamodules.core.errors import DiskError
from datamodules.core.records import Record
from datamodules.prepare import prepare
from datamodules.registry import build
from datamodules.store.reader import Store
from datamodules.store_size import require_room
from tests.datamodules.test_prepare import write_images
from tests.support.readers import dataset
from tests.support.small_disks import Disk, Program, assert_one_line


def commands(root: Path, stores: Path, action: str = "prepare") -> list[str]:
    folders = ["--root", str(root.parent), "--stores", str(stores), "--workers", "1"]
    return ["datasets", action, "kather2016", *folders]


def test_a_store_that_will_not_fit_is_refused_before_anything_is_written(
    forged: Callable[..., Path], small_disk: Disk, program: Program, tmp_path: Path
) -> None:
    root, stores = forged("kather2016"), small_disk.place / "stores"
    small_disk.fill(leave=500_000)
    result = program.run(commands(root, stores), tmp_path / "log")
    assert_one_line(result, str(stores), "needs about 2.2 MB, 0.5 MB are free", "data.stores")
    assert small_disk.files() == []
    small_disk.make_room()
    assert program.run(commands(root, stores), tmp_path / "log")[0] == 0
    (store,) = stores.glob("*.h5")
    assert 2_150_000 < store.stat().st_size < 2_350_000


@pytest.mark.parametrize("compressed", [False, True])
def test_a_disk_that_fills_up_while_a_store_is_written_keeps_the_older_store(
    forged: Callable[..., Path], small_disk: Disk, tmp_path: Path, compressed: bool
) -> None:
    config = DatasetConfig(
        folder=str(forged("kather2016")),
        compression=Compression.lossless if compressed else Compression.none,
    )
    data = DataConfig(root="/", stores=str(small_disk.place))
    reader = build("kather2016", config, data)
    older = prepare(reader, 1).path.read_bytes()
    changed = build("kather2016", config, data)
    config.folder = shutil.copytree(config.folder, tmp_path / "again", copy_function=shutil.copy)

    records = changed.records

    def filling(root: Path) -> Iterator[Record]:
        for number, record in enumerate(records(root)):
            if number == 20:
                small_disk.fill()
            yield record

    changed.records = filling  # type: ignore[method-assign]
    # What is not compressed is written, and the space checked, after the last record.
    kind, line = (OSError, "No space left") if compressed else (DiskError, "needs about 2.2 MB")
    with pytest.raises(kind, match=line) as caught:
        prepare(changed, 1)
    assert not compressed or caught.value.filename == str(reader.store_path)
    assert small_disk.files() == [reader.store_path.name]
    assert reader.store_path.read_bytes() == older
    small_disk.make_room()
    assert prepare(build("kather2016", config, data), 1).written


def test_stores_that_fit_one_by_one_but_not_together_are_refused(
    forged: Callable[..., Path], small_disk: Disk
) -> None:
    readers = [dataset(name, forged(name), small_disk.place) for name in ("kather2016", "glas")]
    small_disk.fill(leave=3_000_000)
    for reader in readers:
        require_room([reader])
    with pytest.raises(DiskError, match=r"needs about 3\.7 MB, 3\.0 MB are free"):
        require_room(readers)


def test_a_prepared_store_on_a_read_only_disk_serves_and_a_new_one_is_one_line(
    forged: Callable[..., Path], small_disk: Disk, program: Program, tmp_path: Path
) -> None:
    root, stores = forged("kather2016"), small_disk.place / "stores"
    assert program.run(commands(root, stores), tmp_path / "log")[0] == 0
    small_disk.protect()
    assert program.run(commands(root, stores), tmp_path / "log")[0] == 0
    code, printed = program.run(commands(root, stores, "verify"), tmp_path / "log")
    assert code == 0 and "stamp" in printed and "sound;" in printed and "Traceback" not in printed
    other = [*commands(root, small_disk.place / "others")]
    assert_one_line(
        program.run(other, tmp_path / "log"), str(small_disk.place), "Read-only file system"
    )


def test_a_store_that_is_open_is_read_to_its_end_when_it_is_replaced_or_its_disk_vanishes(
    small_disk: Disk, program: Program, tmp_path: Path
) -> None:
    write_images(tmp_path / "own", 4)
    data = DataConfig(root=str(tmp_path), stores=str(small_disk.place / "stores"))
    for compression in Compression:
        config = DatasetConfig(reader="class_folders", folder="own", compression=compression)
        prepare(build("own", config, data), 1)
    stores = [Store(path) for path in sorted((small_disk.place / "stores").glob("*.h5"))]
    before = [store.images(range(len(store))) for store in stores]
    assert len(stores) == 2
    shutil.rmtree(small_disk.place / "stores")
    small_disk.unmount()
    for store, pixels in zip(stores, before, strict=True):
        np.testing.assert_array_equal(store.images(range(len(store))), pixels)
        assert store.source(0) and store.group_names and store.corner(0) == (0, 0)
