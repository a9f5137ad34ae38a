"""The `datasets` verbs on all public datasets, as a user calls them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.formats.images import write_image
from datamodules.registry import public_names
from lightning_app.cli import main
from tests.support.readers import IMAGES

PUBLIC = public_names()


def lines_of(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


@pytest.mark.slow
def test_all_readers_are_forged_prepared_verified_listed_and_shown(forged, tmp_path, capsys):
    assert len(PUBLIC) == 31
    root = forged(PUBLIC[0]).parent  # keeps what other tests forged there
    where = ["--root", str(root), "--stores", str(tmp_path / "stores")]

    assert main(["datasets", "forge", "--all", "--images", str(IMAGES), *where]) == 0
    assert len(lines_of(capsys.readouterr().out, "forged")) == len(PUBLIC)
    for state in ("written in", "up to date"):
        assert main(["datasets", "prepare", "--all", "--workers", "2", *where]) == 0
        assert len(lines_of(capsys.readouterr().out, state)) == len(PUBLIC)
    assert main(["datasets", "verify", "--all", "--workers", "2", *where]) == 0
    assert len(lines_of(capsys.readouterr().out, ": sound; ")) == len(PUBLIC)
    assert main(["datasets", "list", *where]) == 0
    output = capsys.readouterr().out
    for heading in ("tasks", "organs", "images", "licence", "present?", "prepared?", "verified?"):
        assert heading in output
    for name in PUBLIC:
        (row,) = [row for row in output.splitlines() if row.startswith(f"\u2502 {name} ")]
        assert " patches" in row
        assert row.count("yes") == 2, row  # present and verified
    assert main(["datasets", "show", "--all", "--out", str(tmp_path / "sheets"), *where]) == 0
    assert {path.stem for path in (tmp_path / "sheets").glob("*.png")} == set(PUBLIC)


def broken(folder: Path) -> dict[str, tuple[str, Callable[[], str]]]:
    """By kind of error: the reader, and a call that writes such data and returns the bad file."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)

    def empty_class() -> str:
        write_image(folder / "a/1.png", pixels)
        (folder / "b").mkdir()
        return "b: the folder holds no image"

    def no_image() -> str:
        write_image(folder / "a/1.png", pixels)
        (folder / "b").mkdir()
        (folder / "b/2.png").write_bytes(b"no image")
        return "2.png"

    def masked(mask: np.ndarray) -> str:
        write_image(folder / "images/1.png", pixels)
        write_image(folder / "masks/1.png", mask)
        return "images/1.png"

    def boxed(file: str, box: list[int]) -> str:
        write_image(folder / "images/1.png", pixels)
        table = {
            "images": [{"id": 1, "file_name": file, "width": 30, "height": 20}],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": box}],
        }
        (folder / "annotations.json").write_text(json.dumps(table))
        return f"images/{file}"

    large, strange = np.zeros((20, 31), np.uint8), np.full((20, 30), 2, np.uint8)
    return {
        "missing folder": ("class_folders", lambda: str(folder)),
        "empty class folder": ("class_folders", empty_class),
        "image that does not decode": ("class_folders", no_image),
        "mask of another size": ("image_masks", lambda: masked(large)),
        "class index out of range": ("image_masks", lambda: masked(strange)),
        "box outside its image": ("coco_boxes", lambda: boxed("1.png", [20, 5, 15, 5])),
        "annotation without image": ("coco_boxes", lambda: boxed("2.png", [5, 5, 5, 5])),
    }


@pytest.mark.parametrize("kind", broken(Path()))
def test_bad_input_gives_one_line_that_names_the_file_and_leaves_no_store(kind, tmp_path, capsys):
    reader, write = broken(tmp_path / "own")[kind]
    named = write()
    recipe, stores = tmp_path / "recipe.yaml", tmp_path / "stores"
    own = f"own: {{reader: {reader}, folder: own, patch_size: 16}}"
    recipe.write_text(f"data: {{root: {tmp_path}, stores: {stores}, train: {{{own}}}}}")

    assert main(["datasets", "prepare", "--recipe", str(recipe)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: own: ")
    assert named in lines[0]
    assert [path for path in stores.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.slow
def test_make_data_prepares_what_is_there_and_reports_what_is_missing(tmp_path, repository):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    for name, image in zip(("a", "b"), pixels, strict=True):
        write_image(tmp_path / "data/own" / name / "1.png", image)
    recipe = tmp_path / "recipe.yaml"
    own = "own: {reader: class_folders, folder: own, patch_size: 32}"
    stores = f"stores: {tmp_path / 'stores'}"
    recipe.write_text(f"data: {{{stores}, train: {{{own}}}, unseen: {{glas: {{}}}}}}")
    (tmp_path / "stamp").touch()  # newer than the files that an installation depends on
    settings = {"STAMP": tmp_path / "stamp", "RUN_PYTHON": sys.executable, "CONFIG": recipe}
    settings["ARGS"] = ""  # `make test` would pass its own on
    run = subprocess.run(
        ["make", "data", f"DATA={tmp_path / 'data'}", *(f"{k}={v}" for k, v in settings.items())],
        cwd=repository,
        env={**os.environ, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    space = run.stdout.index("disk space: ")
    assert space < run.stdout.index("own: 2 images read, 2 patches, written")
    assert "own: sound; 2 images and 2 stored patches" in run.stdout
    assert "glas: GlaS gland segmentation cannot be downloaded" in run.stderr
    assert "glascontest" in run.stderr
