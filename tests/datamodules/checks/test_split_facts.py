"""A group on two sides and a poor validation are told wherever scores are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from datamodules.checks.split_facts import leaks, split_warnings
from datamodules.config import DataConfig, DatasetConfig
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from lightning_app.cli import main
from lightning_app.config import load_config
from lightning_app.pretrain import assemble
from tests.support.readers import dataset


def own_images(root: Path, names: list[str]) -> None:
    """Noise at paths such as train/a/p1_0.png."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(path)


def own(root: Path, stores: Path, **data: float) -> DatasetReader:
    options = {"group": r"(p\d+)", "mpp": 0.5}
    config = DatasetConfig(reader="class_folders", folder="own", patch_size=32, options=options)
    folders = DataConfig(root=str(root), stores=str(stores), mpp=0.5, **data)
    reader = build("own", config, folders)
    prepare(reader, workers=1)
    return reader


LEAKING = [
    *(f"train/{label}/p{p}_{label}{i}.png" for p in range(1, 7) for label in "ab" for i in (0, 1)),
    *(f"test/{label}/p{p}_{label}{i}.png" for p in (6, 7) for label in "ab" for i in (2, 3)),
]


def test_a_patient_in_train_and_test_is_a_leak_with_its_share_of_the_test_patches(tmp_path):
    own_images(tmp_path / "own", LEAKING)
    reader = own(tmp_path, tmp_path / "stores")
    (leak,) = leaks(reader, reader.store)
    assert leak.groups == ("p6",)
    assert leak.sides[1] == "test" and leak.share == 0.5
    assert leak.text in split_warnings(reader)
    assert "p6; 50% of the test patches are of them" in leak.text


def test_groups_on_one_side_are_no_leak(tmp_path):
    clean = [name for name in LEAKING if not name.startswith("test") or "p7" in name]
    own_images(tmp_path / "own", clean)
    assert split_warnings(own(tmp_path, tmp_path / "stores", val_fraction=0.2)) == []


def test_the_publishers_reason_stands_beside_a_known_overlap(forged, tmp_path):
    reader = dataset("glas", forged("glas"), tmp_path)
    prepare(reader, workers=1)
    (first, *_) = leaks(reader, reader.store)
    assert first.text.endswith(reader.split_overlap)


def test_a_leak_is_told_by_verify_at_the_start_of_a_run_and_in_its_provenance(tmp_path, capsys):
    own_images(tmp_path / "own", LEAKING)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"out: {tmp_path / 'runs'}\n"
        "data:\n"
        f"  root: {tmp_path}\n"
        f"  stores: {tmp_path / 'stores'}\n"
        "  workers: 0\n"
        "  image_size: 32\n"
        "  batch_size: 2\n"
        "  train:\n"
        "    own:\n"
        "      {reader: class_folders, folder: own, patch_size: 32, options: {group: '(p\\d+)'}}\n"
        "model: {encoder: test_convnext, weights: random, neck_channels: 16}\n"
        "trainer: {accelerator: cpu, epochs: 1, steps_per_epoch: 1}\n"
        "wandb: {mode: disabled}\n"
    )
    assert main(["datasets", "prepare", "--recipe", str(recipe), "--workers", "1"]) == 0
    assert main(["datasets", "verify", "--recipe", str(recipe), "--workers", "1"]) == 2
    assert "in train and in test" in capsys.readouterr().out
    run = assemble(load_config(recipe))
    said = capsys.readouterr().err.splitlines()
    told = [text for text in said if text.startswith("own: 1 group (")]
    assert len(told) == 1 and "in test: p6; 50%" in told[0]
    assert told[0].removeprefix("own: ") in (run.folder / "provenance.json").read_text()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/p1_0.png", "a/p1_1.png", "b/p1_2.png"], "validation is empty"),
        (["a/p1_0.png", "a/p1_1.png", "b/p2_2.png"], "validation is empty"),
        (
            [f"{label}/p{p}_{label}{i}.png" for p in (1, 2) for label in "ab" for i in range(10)],
            "validation holds 50.0% of the training patches, 10.0% were wanted",
        ),
        (
            [f"a/p{p}_0.png" for p in range(1, 21)] + ["b/p1_1.png"],
            "validation lacks 1 of 2 classes (b of",
        ),
    ],
)
def test_a_poor_validation_is_told_with_what_was_reached(tmp_path, names, expected):
    own_images(tmp_path / "own", names)
    (caution,) = split_warnings(own(tmp_path, tmp_path / "stores"))
    assert expected in caution


def test_no_validation_on_request_is_no_caution(tmp_path):
    own_images(tmp_path / "own", ["a/p1_0.png", "b/p1_2.png"])
    assert split_warnings(own(tmp_path, tmp_path / "stores", val_fraction=0.0)) == []
