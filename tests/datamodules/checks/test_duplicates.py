from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from datamodules.checks.duplicates import Duplicates, find_duplicates
from datamodules.checks.perceptual_hash import RADIUS, close_pairs, orbit, similarity, thumbnails
from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.records import Record, Task, TaskKind
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store.reader import Store
from datamodules.synthetic.scene import Slide

SIDE = 96
TURNS = {
    f"{turns * 90} degrees{', mirrored' if mirrored else ''}": (turns, mirrored)
    for turns in range(4)
    for mirrored in (False, True)
}


class Named(DatasetReader):
    """Files called <split>-<group>-<name>.png."""

    title = "Named"
    organs = ("colon",)
    licence = "CC0"
    folder = "named"
    patch_size = SIDE
    tasks = (Task("class", TaskKind.CLASSIFICATION, ("a", "b")),)

    def records(self, root: Path) -> Iterator[Record]:
        for path in sorted(root.glob("*.png")):
            split, group, _ = path.stem.split("-")
            yield Record(path.name, path, {"class": 0}, split, group)


def tissue(seed: int, side: int = SIDE) -> np.ndarray:
    return Slide(np.random.default_rng(seed), mpp=1.0).field(side).image


def turned(image: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    image = np.rot90(image, turns)
    return np.ascontiguousarray(image[:, ::-1] if mirrored else image)


def store_of(folder: Path, images: dict[str, np.ndarray]) -> Store:
    root = folder / "data" / "named"
    root.mkdir(parents=True)
    for name, image in images.items():
        PIL.Image.fromarray(image).save(root / f"{name}.png")
    dataset = Named(DataConfig(root=str(folder / "data"), stores=str(folder), mpp=0))
    prepare(dataset, workers=1)
    return dataset.store


def unrelated(count: int, start: int = 0) -> dict[str, np.ndarray]:
    return {f"train-p{i}-{i:03d}": tissue(start + i) for i in range(count)}


def sources(duplicates: Duplicates) -> list[tuple[str, str]]:
    return [(pair.first.source, pair.second.source) for pair in duplicates.pairs]


def test_planted_duplicates_are_found_and_nothing_else(tmp_path):
    images = unrelated(60)
    images["test-q1-exact"] = images["train-p3-003"]
    images["train-q2-turned"] = turned(images["train-p7-007"], 1, True)
    store = store_of(tmp_path, images)
    duplicates = find_duplicates({"main": store})
    assert sources(duplicates) == [
        ("test-q1-exact.png", "train-p3-003.png"),
        ("train-p7-007.png", "train-q2-turned.png"),
    ]
    assert (duplicates.exact, duplicates.near, duplicates.patches) == (1, 1, 62)
    first, second = duplicates.pairs
    assert (first.exact, first.first.split, first.second.split) == (True, "test", "train")
    assert (first.first.row, first.second.group) == (0, "p3")
    assert not second.exact


@pytest.mark.parametrize("name", TURNS)
def test_every_flip_and_rotation_is_found(tmp_path, name):
    images = unrelated(12)
    images["train-q-copy"] = turned(images["train-p5-005"], *TURNS[name])
    duplicates = find_duplicates({"main": store_of(tmp_path, images)})
    assert sources(duplicates) == [("train-p5-005.png", "train-q-copy.png")]
    assert duplicates.pairs[0].similarity == pytest.approx(1, abs=1e-3)
    assert duplicates.pairs[0].exact == (name == "0 degrees")


@pytest.mark.parametrize("change", ["jpeg", "brightness", "noise", "resized"])
def test_a_copy_that_was_processed_is_found(tmp_path, change):
    images = unrelated(12)
    copy = turned(images["train-p5-005"], 3, False)
    if change == "jpeg":
        copy = cv2.imdecode(cv2.imencode(".jpg", copy, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 1)
    elif change == "brightness":
        copy = np.clip(copy * 1.05 + 5, 0, 255).astype(np.uint8)
    elif change == "noise":
        noise = np.random.default_rng(0).normal(0, 8, copy.shape)
        copy = np.clip(copy + noise, 0, 255).astype(np.uint8)
    else:
        small = cv2.resize(copy, (77, 77), interpolation=cv2.INTER_AREA)
        copy = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    images["train-q-copy"] = copy
    duplicates = find_duplicates({"main": store_of(tmp_path, images)})
    assert sources(duplicates) == [("train-p5-005.png", "train-q-copy.png")]
    assert not duplicates.pairs[0].exact


def test_duplicates_across_stores_of_any_patch_size_are_found(tmp_path):
    one = store_of(tmp_path / "one", unrelated(10))
    Named.patch_size = 128
    try:
        images = {f"train-x{i}-{i}": tissue(500 + i, 128) for i in range(10)}
        images["train-x-copy"] = cv2.resize(turned(tissue(4), 2, False), (128, 128))
        other = store_of(tmp_path / "other", images)
    finally:
        Named.patch_size = SIDE
    duplicates = find_duplicates({"one": one, "other": other})
    assert [(p.first.dataset, p.second.dataset) for p in duplicates.pairs] == [("one", "other")]
    assert sources(duplicates) == [("train-p4-004.png", "train-x-copy.png")]


def test_the_worst_duplicates_come_first(tmp_path):
    images = unrelated(6)
    images["train-p1-same"] = images["train-p1-001"]  # same group
    images["train-z-group"] = images["train-p2-002"]  # other group
    images["test-z-split"] = turned(images["train-p3-003"], 1, False)  # other split, only near
    other = store_of(tmp_path / "other", {"train-p0-000": images["train-p0-000"]})
    duplicates = find_duplicates({"main": store_of(tmp_path / "own", images), "other": other})
    assert sources(duplicates) == [
        ("test-z-split.png", "train-p3-003.png"),
        ("train-p0-000.png", "train-p0-000.png"),
        ("train-p2-002.png", "train-z-group.png"),
        ("train-p1-001.png", "train-p1-same.png"),
    ]
    short = find_duplicates({"main": Store(store_path(tmp_path / "own"))}, limit=1)
    assert sources(short) == [("test-z-split.png", "train-p3-003.png")]
    assert (short.exact, short.near) == (2, 1)
    assert "the worst 1" in short.text()


def store_path(folder: Path) -> Path:
    return next(folder.glob("*.h5"))


def test_empty_patches_are_no_duplicates(tmp_path):
    blank = {f"train-b-{i}": np.full((SIDE, SIDE, 3), 240, np.uint8) for i in range(5)}
    duplicates = find_duplicates({"main": store_of(tmp_path, {**unrelated(4), **blank})})
    assert (duplicates.exact, duplicates.near, duplicates.patches) == (0, 0, 9)
    only = find_duplicates({"main": store_of(tmp_path / "only", blank)})
    assert (only.exact, only.near, only.patches) == (0, 0, 5)


def test_n_equal_patches_count_as_n_minus_1_pairs(tmp_path):
    images = unrelated(3) | {f"train-c-{i}": tissue(0) for i in range(5)}
    duplicates = find_duplicates({"main": store_of(tmp_path, images)})
    assert (duplicates.exact, duplicates.near) == (5, 0)


def test_close_hashes_equal_those_of_a_full_comparison():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 63, (8, 300), np.uint64)
    for row in range(0, 300, 3):  # copies with up to eight flipped bits, in a random variant
        bits = rng.choice(63, int(rng.integers(0, 9)), replace=False)
        flipped = np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=0)
        hashes[0, row + 1] = hashes[rng.integers(8), row] ^ np.uint64(flipped)
    all_bits = np.bitwise_count(hashes[:, :, None] ^ hashes[0][None, None]).min(axis=0)
    expected = {(i, j) for i, j in np.argwhere(all_bits <= RADIUS).tolist() if i < j}
    assert {tuple(pair) for pairs in close_pairs(hashes) for pair in pairs.tolist()} == expected
    assert len(expected) >= 50


def test_an_image_and_its_rotated_copy_have_the_same_set_of_hashes():
    image = tissue(1)
    one = orbit(thumbnails(image[None]))
    for turns, mirrored in TURNS.values():
        other = orbit(thumbnails(turned(image, turns, mirrored)[None]))
        assert set(other.ravel().tolist()) == set(one.ravel().tolist())
    assert len(set(one.ravel().tolist())) == 8


def test_similarity_is_independent_of_brightness_and_low_for_different_fields():
    one, other = thumbnails(np.stack([tissue(1), tissue(2)]))[:, None]
    assert similarity(one, one * 0.5 + 40)[0] == pytest.approx(1, abs=1e-5)
    assert similarity(one, other)[0] < 0.8


def test_real_unrelated_patches_are_no_duplicates(real_samples, tmp_path):
    data = DataConfig(root=str(real_samples / "official"), stores=str(tmp_path))
    stores = {}
    for name in ("idc", "lc25000"):
        dataset = build(name, DatasetConfig(), data)
        prepare(dataset, workers=1)
        stores[name] = dataset.store
    duplicates = find_duplicates(stores)
    assert duplicates.patches > 1000
    assert duplicates.pairs == ()
