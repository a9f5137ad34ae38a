"""Features of folders and stores: in order, atomic, and resumable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datamodules.core.errors import DatasetNotFoundError, ImageError
from datamodules.formats.images import write_image
from lightning_app.cli import main
from lightning_app.publish.embed import embed
from lightning_app.publish.image_sources import ImageFolder, StorePatches
from models.inference.frozen_encoder import FrozenEncoder
from models.inference.loading import load_encoder
from tests.support.small_stores import make_patch, small_store

SIDE = 32


@pytest.fixture(scope="module")
def encoder(exported) -> FrozenEncoder:
    return load_encoder(exported)


def write_images(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        write_image(folder / f"{number % 3}/image{number:03d}.png", pixels)
    return folder


def test_a_folder_gives_one_row_per_image_in_order_of_path(encoder, tmp_path):
    source = ImageFolder(write_images(tmp_path / "images", 7), SIDE)
    assert embed(encoder, source, tmp_path / "new/f.h5", 3) == 7
    with h5py.File(tmp_path / "new/f.h5") as file:
        paths = file["paths"].asstr()[:].tolist()
        assert paths == sorted(paths)
        for path, features in zip(paths, file["features"][:], strict=True):
            pixels = source.read(range(paths.index(path), paths.index(path) + 1))
            alone = encoder.embed(torch.from_numpy(pixels))[0]
            torch.testing.assert_close(torch.from_numpy(features), alone, rtol=1e-4, atol=1e-5)
        assert file.attrs["digest"] == encoder.digest
        assert (file.attrs["timm_name"], file.attrs["input_size"]) == ("resnet18", SIDE)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["f.h5"]


def test_a_store_gives_one_row_per_patch_with_its_origin(encoder, tmp_path):
    store = small_store(tmp_path / "s.h5", 10, SIDE)
    embed(encoder, StorePatches(tmp_path / "s.h5", SIDE), tmp_path / "f.h5", 4)
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["coordinates"][:].tolist() == [[n, 2 * n] for n in range(10)]
        assert file["paths"].asstr()[:].tolist() == [f"images/{n}.png" for n in range(10)]
        assert file["splits"].asstr()[3:5].tolist() == ["val", "test"]
        assert file["groups"].asstr()[9] == "patient 3"
        assert (file.attrs["store_digest"], file.attrs["mpp"]) == (store.digest, 0.5)
        alone = encoder.embed(torch.from_numpy(make_patch(7, SIDE).image[None]))
        torch.testing.assert_close(torch.from_numpy(file["features"][7:8]), alone)


class Interrupted(ImageFolder):
    """Fails in the middle."""

    def read(self, rows: range) -> np.ndarray:
        if rows.start >= 8:
            raise ImageError("enough")
        return super().read(rows)


def test_an_interrupted_call_continues_after_its_last_complete_batch(encoder, tmp_path):
    folder = write_images(tmp_path / "images", 19)
    embed(encoder, ImageFolder(folder, SIDE), tmp_path / "calm.h5", 4)
    with pytest.raises(ImageError):
        embed(encoder, Interrupted(folder, SIDE), tmp_path / "f.h5", 4)
    assert not (tmp_path / "f.h5").exists()
    partial = tmp_path / ".f.h5.partial"
    with partial.open("ab") as file:
        file.write(b"torn")  # a truncated batch

    class Counted(ImageFolder):
        first = 10**9

        def read(self, rows: range) -> np.ndarray:
            self.first = min(self.first, rows.start)
            return super().read(rows)

    source = Counted(folder, SIDE)
    embed(encoder, source, tmp_path / "f.h5", 4)
    assert source.first == 8
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "calm.h5").read_bytes()


def test_features_of_other_images_or_settings_are_not_reused(encoder, tmp_path):
    folder = write_images(tmp_path / "images", 12)
    with pytest.raises(ImageError):
        embed(encoder, Interrupted(folder, SIDE), tmp_path / "f.h5", 4)
    write_image(folder / "0/image000.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    embed(encoder, ImageFolder(folder, SIDE), tmp_path / "f.h5", 4)
    embed(encoder, ImageFolder(folder, SIDE), tmp_path / "calm.h5", 4)
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "calm.h5").read_bytes()
    with pytest.raises(ImageError):
        embed(encoder, Interrupted(folder, SIDE), tmp_path / "g.h5", 4)
    embed(encoder, ImageFolder(folder, SIDE), tmp_path / "g.h5", 5)
    with h5py.File(tmp_path / "g.h5") as one, h5py.File(tmp_path / "calm.h5") as other:
        np.testing.assert_allclose(one["features"][:], other["features"][:], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_killed_command_continues_and_writes_the_same_file(
    exported, repository, tmp_path, monkeypatch, capsys
):
    folder = write_images(tmp_path / "images", 300)
    command = ["embed", str(exported), str(folder), "--batch-size", "4", "--out", "f.h5"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "CUDA_VISIBLE_DEVICES": ""}
    program = [sys.executable, "-m", "lightning_app", *command]
    process = subprocess.Popen(program, cwd=tmp_path, env=environment)
    partial = tmp_path / ".f.h5.partial"
    until = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size > 20 * 4 * 512):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.exists() and not (tmp_path / "f.h5").exists()
    monkeypatch.chdir(tmp_path)
    assert main(command) == 0
    assert "of 300 embeddings exist already" in "".join(capsys.readouterr())
    embed(named(exported), ImageFolder(folder, SIDE), tmp_path / "calm.h5", 4)
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "calm.h5").read_bytes()


def named(exported: Path) -> FrozenEncoder:
    """Load the encoder under the name that the command gives it."""
    encoder = load_encoder(exported)
    encoder.name = exported.name
    return encoder


def test_a_folder_without_images_is_reported(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no image file there or below"):
        ImageFolder(tmp_path, SIDE)


def test_embed_passes_over_junk_and_says_what_it_did(exported, tmp_path, capsys):
    folder = write_images(tmp_path / "images", 3)
    for name in ("._a.png", ".ipynb_checkpoints/a.png", "@eaDir/a.png", "__MACOSX/a.png"):
        write_image(folder / name, np.zeros((SIDE, SIDE, 3), np.uint8))
    (folder / "x.tif").mkdir()
    (folder / "slide.svs").write_bytes(b"x")
    write_image(folder / "0/image000.png", np.zeros((SIDE, SIDE, 4), np.uint8))
    out = tmp_path / "f.h5"
    assert main(["embed", str(exported), str(folder), "--out", str(out)]) == 0
    with h5py.File(out) as file:
        names = file["paths"].asstr()[:].tolist()
    assert names == ["0/image000.png", "1/image001.png", "2/image002.png"]
    told = capsys.readouterr().out
    assert "1 skipped (no image, by its ending: 1)" in told
    assert "1 warnings (transparent pixels, laid over white: 1)" in told


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (b"b\xe9.png", b"", "the name b\\udce9.png is not UTF-8"),
        (b"b.png", b"", "b.png: is empty (0 bytes)"),
        (b"b.png", b"II*\0\x08\0\0\0", "b.png: not a readable image"),
    ],
)
def test_embed_ends_with_one_line_and_no_file(exported, tmp_path, capsys, name, content, words):
    folder = write_images(tmp_path / "images", 2)
    Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(content)
    assert main(["embed", str(exported), str(folder), "--out", str(tmp_path / "f.h5")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and words in told
    assert not (tmp_path / "f.h5").exists()
