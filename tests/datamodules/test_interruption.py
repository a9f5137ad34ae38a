"""A preparation that is interrupted or killed, at any moment, leaves nothing half done."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import StoreError
from datamodules.formats.images import write_image
from datamodules.prepare import is_prepared, lock_of, prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store.reader import Store
from tests.datamodules.test_prepare import write_images

SIDE = 128
RECIPE = f"""
data:
  root: .
  stores: stores
  train:
    own: {{reader: class_folders, folder: own, patch_size: {SIDE}}}
"""


def own_data(folder: Path) -> DatasetReader:
    config = DatasetConfig(reader="class_folders", folder="own", patch_size=SIDE)
    return build("own", config, DataConfig(root=str(folder), stores=str(folder / "stores")))


def partial_of(dataset: DatasetReader) -> Path:
    return dataset.store_path.with_name(f".{dataset.store_path.name}.partial")


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Data whose preparation takes seconds: many names of one large image."""
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3)).astype(np.uint8)
    write_image(tmp_path / "own/benign/patient0_0.png", pixels)
    for number in range(1, 150):
        link = tmp_path / f"own/benign/patient{number // 8}_{number}.png"
        os.link(tmp_path / "own/benign/patient0_0.png", link)
    write_images(tmp_path / "own", 2)
    return tmp_path


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "the condition never came true"
        time.sleep(0.005)


def shorten(folder: Path) -> None:
    """Leave few images, so that preparing to the end is quick."""
    for path in sorted((folder / "own/benign").iterdir())[4:]:
        path.unlink()


def assert_the_next_call_succeeds(folder: Path) -> None:
    dataset = own_data(folder)
    with pytest.raises(StoreError, match="no such store"):
        Store(dataset.store_path)
    shorten(folder)
    assert prepare(dataset, 1).written
    assert len(dataset.store) == len(list((folder / "own").rglob("*.png")))
    assert [path.name for path in (folder / "stores").glob(".*.partial")] == []


@pytest.mark.parametrize("moment", ["begun", "midway"])
def test_a_killed_preparation_leaves_no_store_and_no_worker(slow, moment):
    dataset = own_data(slow)
    partial = partial_of(dataset)
    # It and its workers inherit the end of a pipe, which closes when the last of them is gone.
    alive, held = os.pipe()
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=prepare, args=(dataset, 2))
    process.start()
    os.close(held)
    enough = 0 if moment == "begun" else 32 * SIDE * SIDE * 3  # patches are on the disk
    wait_for(lambda: partial.exists() and partial.stat().st_size >= enough)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert partial.exists()
    assert select.select([alive], [], [], 10)[0], "its workers are still running"
    os.close(alive)
    assert_the_next_call_succeeds(slow)


def test_ctrl_c_ends_a_preparation_with_one_line_and_leaves_nothing(slow, repository):
    (slow / "recipe.yaml").write_text(RECIPE)
    command = "-m lightning_app datasets prepare --recipe recipe.yaml --workers 2"
    process = subprocess.Popen(
        [sys.executable, *command.split()],
        cwd=slow,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    partial = partial_of(own_data(slow))
    wait_for(partial.exists)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers, too
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert not partial.exists()
    assert_the_next_call_succeeds(slow)


def test_partial_stores_of_killed_processes_are_removed(tmp_path):
    write_images(tmp_path / "own", 4)
    (tmp_path / "stores").mkdir()
    left = tmp_path / "stores/.other-12345678.h5.partial"
    busy = tmp_path / "stores/.busy-12345678.h5.partial"
    for path in (left, busy):
        path.write_bytes(b"half a store")
    with FileLock(lock_of(tmp_path / "stores/busy-12345678.h5")):
        dataset = own_data(tmp_path)
        prepare(dataset, 1)
    assert is_prepared(dataset)
    assert not left.exists()
    assert busy.read_bytes() == b"half a store"
