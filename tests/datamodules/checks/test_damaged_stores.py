"""A store damaged in any byte is refused, or verification reports it; nothing hangs or crashes."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.checks.verify import verify
from datamodules.config import Compression, DataConfig, DatasetConfig
from datamodules.core.errors import StoreError
from datamodules.formats.images import write_image
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store.reader import Store

FLIPS = 60


def masks(folder: Path, compression: Compression) -> DatasetReader:
    options = {"classes": ["background", "gland"], "group": r"^(p\d)"}
    config = DatasetConfig("image_masks", "own", patch_size=32, mpp=0.0, options=options)
    config.compression = compression
    return build("own", config, DataConfig(root=str(folder), stores=str(folder / "stores")))


def everything(path: Path) -> str:
    store = Store(path)
    rows = range(len(store))
    parts: list[Any] = [sorted(store.attributes.items(), key=str), store.group_names]
    parts += [store.sources(rows), store.images(rows).tobytes(), store.corners.tolist()]
    parts += [store.masks("mask", rows).tobytes(), store.split.tolist(), store.group.tolist()]
    return str(parts)


def outcome(dataset: DatasetReader, expected: str) -> str:
    try:
        found = "same" if everything(dataset.store_path) == expected else "other"
    except StoreError as error:
        found = "refused" if "\n" not in str(error) else str(error)
    report = verify(dataset, workers=1)
    lines = [finding.what for finding in report.findings if "\n" in finding.what]
    return " ".join([found, "sound" if report.ok else "reported", *lines])


def flip_and_read(dataset: DatasetReader, places: list[int], results: Any) -> None:
    """Damage one byte after the other; `results` gets each place first, then what came of it."""
    path = dataset.store_path
    whole, expected = path.read_bytes(), everything(path)
    for number, place in enumerate(places):
        damaged = bytearray(whole)
        damaged[place] ^= (255, 1 << number % 8)[number % 2]
        path.write_bytes(damaged)
        results.put(place)
        results.put(outcome(dataset, expected))


@pytest.mark.parametrize("compression", list(Compression))
def test_a_flipped_byte_anywhere_is_refused_or_reported_or_changes_nothing(
    tmp_path: Path, compression: Compression
) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 255, (40, 32, 3), np.uint8)
        write_image(tmp_path / f"own/images/p{number}.png", pixels)
        write_image(tmp_path / f"own/masks/p{number}.png", pixels[..., 0] // 128)
    dataset = masks(tmp_path, compression)
    whole = np.fromfile(prepare(dataset, workers=1).path, np.uint8)
    places = rng.choice(np.flatnonzero(whole), FLIPS, replace=False).tolist()  # rarely padding
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=flip_and_read, args=(dataset, places, results))
    process.start()
    found = []
    for place in places:
        assert results.get(timeout=60) == place
        found.append(results.get(timeout=60))  # raises where it hangs or died
    process.join(60)
    assert process.exitcode == 0
    counts = Counter(found)
    assert set(counts) <= {"same sound", "same reported", "other reported", "refused reported"}
    assert counts["refused reported"] > 0 and counts["same sound"] < FLIPS // 2
