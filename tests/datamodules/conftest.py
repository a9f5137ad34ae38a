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
    """`official(name, **options)`: a reader on real files in the publisher's layout."""

    def real(name: str, **options: Any) -> DatasetReader:
        folder = real_samples / "official" / name
        if not folder.is_dir():
            pytest.skip(f"no real sample {folder}")
        return dataset(name, folder, tmp_path / "stores", **options)

    return real
