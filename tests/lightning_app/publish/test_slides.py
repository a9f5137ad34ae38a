"""Features of slides: in the form that others read, resumed, and one bad slide among good ones."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datamodules.core.errors import SlideError
from datamodules.formats.images import image_size
from datamodules.slides.opening import open_slide
from datamodules.slides.tiles import Tiling
from lightning_app.cli import main
from lightning_app.publish.embed import embed
from lightning_app.publish.image_sources import SlidePatches
from models.inference.loading import load_encoder
from tests.support.slide_files import write_slide

SIDE = 64


def run(exported: Path, place: Path, out: Path, *options: str) -> int:
    more = ["--mpp", "2", "--batch-size", "8", *options]
    return main(["embed", str(exported), str(place), "--out", str(out), *more])


def test_a_slide_gives_what_trident_and_clam_read(exported, tmp_path, capsys):
    path = write_slide(tmp_path / "a.svs", 10, 8, 0, description="Aperio x |MPP = 0.5")
    assert run(exported, path, tmp_path / "f.h5") == 0
    with h5py.File(tmp_path / "f.h5") as file:
        features, coords = file["features"][:], file["coords"][:]
        facts = dict(file["coords"].attrs)
    assert features.dtype == np.float32 and features.shape == (len(coords), 512)
    assert coords.dtype == np.int64 and coords.shape[1] == 2
    # TRIDENT: squares of level 0; CLAM: a read of patch_size pixels at patch_level.
    assert (facts["patch_size"], facts["patch_size_level0"], facts["overlap"]) == (SIDE, 256, 0)
    assert (facts["level0_width"], facts["level0_height"], facts["name"]) == (5120, 4096, "a")
    assert (facts["patch_level"], facts["mpp"], facts["level0_mpp"]) == (1, 2.0, 0.5)
    slide, encoder = open_slide(path), load_encoder(exported)
    x, y = (coords[7] // int(facts["downsample"])).tolist()
    side = int(facts["patch_size"])
    tile = slide.read(int(facts["patch_level"]), x, y, side, side)
    alone = encoder.embed(torch.from_numpy(tile[None]))[0]
    torch.testing.assert_close(torch.from_numpy(features[7]), alone, rtol=1e-3, atol=1e-4)
    assert image_size(tmp_path / "f.png") == (819, 1024)
    assert f"{len(coords)} embeddings of {path}" in capsys.readouterr().out


def test_reader_processes_and_an_interruption_change_nothing(exported, tmp_path):
    encoder, path = load_encoder(exported), write_slide(tmp_path / "a.tif", 10, 8)
    calm = SlidePatches(path, Tiling(SIDE, 2.0))
    embed(encoder, calm, tmp_path / "calm.h5", 8, readers=0)

    class Interrupted(SlidePatches):
        def read(self, rows: range) -> np.ndarray:
            if rows.start >= 40:
                raise SlideError("enough")
            return super().read(rows)

    with pytest.raises(SlideError, match=r"^enough$"):
        embed(encoder, Interrupted(path, calm.tiles.tiling), tmp_path / "f.h5", 8, readers=2)
    assert (tmp_path / ".f.h5.partial").stat().st_size == 40 * 512 * 4
    embed(encoder, calm, tmp_path / "f.h5", 8, readers=2)
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "calm.h5").read_bytes()


def bad_among_good(folder: Path) -> Path:
    folder.mkdir()
    for name in ("a.tif", "c.tif"):
        write_slide(folder / name, 8, 6)
    write_slide(folder / "b.tif", 8, 6, mpp=0)
    return folder


def test_a_bad_slide_is_reported_at_the_end_and_the_others_are_done(exported, tmp_path, capfd):
    folder, out = bad_among_good(tmp_path / "slides"), tmp_path / "out"
    assert run(exported, folder, out) == 2
    told = capfd.readouterr().err.splitlines()
    assert told[-1].startswith("error: 1 of 3 slides failed: ") and "b.tif" in told[-1]
    assert "add --slide-mpp" in told[-1]
    found = sorted(path.name for path in out.iterdir())
    assert found == ["a.h5", "a.png", "c.h5", "c.png"]
    before = (out / "a.h5").stat().st_mtime_ns
    assert run(exported, folder, out, "--slide-mpp", "0.5") == 0
    assert "(exists)" not in capfd.readouterr().out
    assert (out / "a.h5").stat().st_mtime_ns > before  # made with another setting
    assert run(exported, folder, out, "--slide-mpp", "0.5") == 0
    assert capfd.readouterr().out.count("(exists)") == 3


@pytest.mark.slow
def test_two_processes_share_the_slides_and_write_the_same(exported, tmp_path, capfd):
    folder = bad_among_good(tmp_path / "slides")
    assert run(exported, folder, tmp_path / "out", "--processes", "2") == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: 1 of 3 slides failed: ")
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["a.h5", "a.png", "c.h5", "c.png"]
    assert run(exported, folder / "a.tif", tmp_path / "alone.h5") == 0
    with h5py.File(tmp_path / "alone.h5") as one, h5py.File(tmp_path / "out/c.h5") as other:
        np.testing.assert_allclose(one["features"][:], other["features"][:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--overlap", "64"), "--overlap 64: must be below the tile's 64 px"),
        (("--mpp", "0.25"), "coarser than the 0.25 wanted"),
        (("--tissue", "1", "--mpp", "100"), "no tile with 100 % of tissue"),
    ],
)
def test_a_slide_that_fails_leaves_one_line_and_no_file(exported, tmp_path, capsys, options, words):
    path = write_slide(tmp_path / "a.tif", 4, 4)
    assert run(exported, path, tmp_path / "out/f.h5", *options) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and words in told[0]
    assert not list(tmp_path.glob("out/*"))


def test_two_slides_of_one_name_are_refused(exported, tmp_path, capsys):
    for name in ("a.tif", "a.svs"):
        write_slide(tmp_path / name, 2, 2)
    assert run(exported, tmp_path, tmp_path / "out") == 2
    assert "has the same name as" in capsys.readouterr().err


def test_a_full_disk_leaves_no_features(exported, tmp_path, small_disk, capsys):
    path = write_slide(tmp_path / "a.tif", 10, 8)
    small_disk.fill(leave=200_000)
    assert run(exported, path, small_disk.place / "f.h5") == 2
    assert "f.h5: needs about" in capsys.readouterr().err
    assert small_disk.files() == []
