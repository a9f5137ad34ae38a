"""Datasets for the tests of readers: forged copies, which may be broken, and real samples."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datamodules.reader import DatasetReader
from tests.support.readers import dataset


@pytest.fixture
def forged_copy(forged: Callable[[str], Path], tmp_path: Path) -> Callable[..., DatasetReader]:
    """`forged_copy(name, **options)`: a reader on its own copy of a forged dataset."""

    def copy(name: str, **options: Any) -> DatasetReader:
        shutil.copytree(forged(name), tmp_path / "raw" / name, dirs_exist_ok=True)
        return dataset(name, tmp_path / "raw" / name, tmp_path / "stores", **options)

    return copy


@pytest.fixture
def official(
    real_samples: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., DatasetReader]:
    """`official(name, folder, **options)`: a reader on real files in the publisher's layout."""

    def real(name: str, folder: str = "", **options: Any) -> DatasetReader:
        place = real_samples / "official" / (folder or name)
        if not place.is_dir():
            pytest.skip(f"no real sample {place}")
        return dataset(name, place, tmp_path / "stores", **options)

    return real
