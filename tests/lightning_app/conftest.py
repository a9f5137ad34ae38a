"""The data of small runs, forged and prepared once for all tests that train."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from datamodules.multitask import MultiTaskDataModule
from datamodules.prepare import prepare
from datamodules.synthetic.forge import forge
from tests.support.train_ranks import small_run


@pytest.fixture(scope="session")
def small_data(shared_folder: Path) -> Path:
    """Published files and stores of `small_run`, not to be changed."""
    folder = shared_folder / "small"
    config = small_run(folder)
    with FileLock(shared_folder / "small.lock"):
        for dataset in MultiTaskDataModule(config.data).datasets.values():
            forge(dataset, config.seed, config.data.forge)
            prepare(dataset, workers=1)
    return folder


@pytest.fixture(scope="session")
def small_folder(
    small_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """`small_folder(name)`: a new folder for `small_run` whose data are there.

    Published files are the shared ones; stores are hard links, so that a test may write beside
    them or replace one.
    """

    def folder(name: str) -> Path:
        new = tmp_path_factory.mktemp(name)
        (new / "published").symlink_to(small_data / "published")
        (new / "stores").mkdir()
        for path in (small_data / "stores").glob("*.h5"):
            os.link(path, new / "stores" / path.name)
        return new

    return folder
