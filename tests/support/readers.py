"""Building, preparing and breaking datasets in tests of readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import UserError
from datamodules.core.records import Image
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store.reader import Store

IMAGES = 6
"""Forged per dataset; every reader rounds up to what its layout needs."""


def dataset(
    name: str,
    root: Path,
    stores: Path,
    patch_size: int | None = None,
    target_mpp: float = 0.5,
    **options: Any,
) -> DatasetReader:
    """A reader of the published files in `root`."""
    config = DatasetConfig(folder=str(root), patch_size=patch_size, options=options)
    return build(name, config, DataConfig(root="/", stores=str(stores), mpp=target_mpp))


def prepared(module: DatasetReader) -> Store:
    """The store of a dataset, written in this process."""
    prepare(module, workers=1)
    return module.store


def assert_refused(module: DatasetReader, error: type[UserError], *words: str) -> None:
    """Preparing raises this error, whose message contains all these words, and leaves no store."""
    with pytest.raises(error) as caught:
        prepare(module, workers=1)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"
    stores = Path(module.data.stores)
    assert [p.name for p in stores.iterdir() if p.name.endswith((".h5", ".partial"))] == []


def darkness(image: Image) -> NDArray[np.float64]:
    """Optical density of the red channel, which hematoxylin absorbs most and eosin least."""
    return -np.log((image[..., 0].astype(float) + 1) / 256)
