"""Slides of every kind give the same pixels, tiles lie on tissue, and bad slides are refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from datamodules.core.errors import DatasetNotFoundError, SlideError
from datamodules.formats.images import write_image
from datamodules.slides.opening import OpenSlideFile, open_slide, slides_in
from datamodules.slides.pyramid import read_scaled, thumbnail
from datamodules.slides.pyramidal_tiff import PyramidalTiff
from datamodules.slides.tiles import SlideTiles, Tiling
from datamodules.slides.tissue import tissue_mask
from tests.support.slide_files import SIDE, has_tissue, pattern, write_slide

APERIO = "Aperio Image Library v1\n4096x3072 |AppMag = 40|MPP = 0.2500"
KINDS = {
    "plain": ("a.tif", {"mpp": 0.25}),
    "ome": ("a.ome.tif", {"mpp": 0.25, "ome": True}),
    "aperio": ("a.svs", {"mpp": 0, "description": APERIO}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pyramid_gives_its_levels_its_resolution_and_its_pixels(tmp_path, kind):
    name, options = KINDS[kind]
    slide = PyramidalTiff(write_slide(tmp_path / name, 8, 6, **options))
    assert [(one.width, one.height) for one in slide.levels] == [
        (4096, 3072),
        (1024, 768),
        (256, 192),
    ]
    assert [one.downsample for one in slide.levels] == [1, 4, 16]
    assert slide.mpp == pytest.approx(0.25)
    region = slide.read(0, 3 * SIDE - 100, 3 * SIDE - 50, 300, 200)
    expected = np.tile(pattern(), (2, 2, 1))[SIDE - 50 : SIDE + 150, SIDE - 100 : SIDE + 200]
    assert np.abs(region.astype(int) - expected).mean() < 4  # JPEG
    outside = slide.read(1, -20, 700, 60, 100)
    assert (outside[:, :20] == 255).all() and (outside[68:] == 255).all()
    assert (outside[:68, 20:] == 244).all()


def test_openslide_reads_the_same_pixels(tmp_path):
    pytest.importorskip("openslide", reason="the extra `slides` is not installed")
    path = write_slide(tmp_path / "a.svs", 8, 6, 0, description=APERIO)
    one, other = open_slide(path), PyramidalTiff(path)
    assert isinstance(one, OpenSlideFile)
    assert one.levels == other.levels and one.mpp == other.mpp == 0.25
    for level, corner in ((0, 1500), (1, 300), (2, 70)):
        ours = other.read(level, corner, corner, 90, 60)
        assert np.abs(one.read(level, corner, corner, 90, 60).astype(int) - ours).max() <= 1


def test_without_openslide_a_scanners_own_format_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.mrxs"
    path.write_bytes(b"\xff\xd8\xff")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SlideError, match=r"a.mrxs: no slide that can be read; .*slides"):
        open_slide(path)


def test_labels_and_macro_photographs_are_no_levels(tmp_path):
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (256, 256), "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for height, width in ((1024, 2048), (512, 1024), (700, 600)):
            file.write(np.full((height, width, 3), 200, np.uint8), **options)
        file.write(np.zeros((40, 60, 3), np.uint8), photometric="rgb", metadata=None)
    assert [one.width for one in PyramidalTiff(path).levels] == [2048, 1024]


def test_the_thumbnail_of_one_level_is_that_of_a_pyramid(tmp_path):
    whole = thumbnail(PyramidalTiff(write_slide(tmp_path / "a.tif", 8, 6)), 300)
    alone = thumbnail(PyramidalTiff(write_slide(tmp_path / "b.tif", 8, 6, levels=1)), 300)
    assert whole.shape == alone.shape == (225, 300, 3)
    assert np.abs(whole.astype(int) - alone).mean() < 4


def test_tissue_is_what_is_saturated_without_holes_and_specks():
    image = np.full((200, 300, 3), 244, np.uint8)
    truth = np.zeros((200, 300), bool)
    truth[40:160, 60:200] = True
    image[truth] = (225, 165, 195)
    image[90:92, 90:92] = 244  # a vessel
    image[10:12, 250:252] = (225, 165, 195)  # dust
    image[:5] = 8  # the edge of a cover slip
    mask = tissue_mask(image, mpp=16.0)
    assert (mask != truth).mean() < 0.001
    assert mask[91, 91] and not mask[11, 251] and not mask[:5].any()


def test_a_field_full_of_tissue_is_tissue_and_glass_with_noise_is_none():
    full = np.repeat(np.repeat(pattern(256), 2, 0), 2, 1)
    assert tissue_mask(full, 8.0).mean() > 0.99
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(244, 2, (200, 300, 3)), 0, 255).astype(np.uint8)
    assert not tissue_mask(glass, 8.0).any()


def test_tiles_lie_on_the_tissue_at_the_wanted_resolution(tmp_path):
    path = write_slide(tmp_path / "a.tif", 8, 6, 0.25)
    tiles = SlideTiles(path, Tiling(256, 0.5))
    assert (tiles.level, tiles.span, tiles.slide_mpp) == (0, 512, 0.25)
    expected = np.argwhere(has_tissue(8, 6))[:, ::-1]
    assert tiles.cells.tolist() == expected.tolist()
    assert (tiles.corners == expected * SIDE).all()
    half = cv2.resize(pattern(), (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(tiles.read(range(3, 4))[0].astype(int) - half).mean() < 4


def test_the_nearest_finer_level_is_read_and_gives_the_same_picture(tmp_path):
    path = write_slide(tmp_path / "a.tif", 8, 6, 0.25)
    tiles = SlideTiles(path, Tiling(128, 1.0))
    assert tiles.level == 1
    alone = PyramidalTiff(write_slide(tmp_path / "b.tif", 8, 6, 0.25, levels=1))
    x, y = tiles.corners[2].tolist()
    fine = read_scaled(alone, 0, x, y, tiles.span, 128)
    assert np.abs(tiles.read(range(2, 3))[0].astype(int) - fine).mean() < 4
    assert SlideTiles(path, Tiling(64, 3.9)).level == 1  # level 2 has 4 µm/px


def test_tiles_overlap_as_asked(tmp_path):
    path = write_slide(tmp_path / "a.tif", 8, 6, 0.25)
    corners = SlideTiles(path, Tiling(256, 0.5, overlap=64)).corners
    row = corners[corners[:, 1] == corners[len(corners) // 2, 1]]
    assert set(np.diff(row[:, 0])) == {384}
    centred = SlideTiles(path, Tiling(256, 0.5, overlap=64, centred=True)).corners
    assert set((centred[:, 0] + 64) % 384) == {0}


def test_tiles_travel_to_other_processes_without_the_open_file(tmp_path):
    tiles = SlideTiles(write_slide(tmp_path / "a.tif", 8, 6, 0.25), Tiling(256, 0.5))
    copy = pickle.loads(pickle.dumps(tiles))
    assert "_opened" not in vars(copy) or copy._opened is not tiles._opened
    assert (copy.read(range(5, 9)) == tiles.read(range(5, 9))).all()


def test_the_drawn_thumbnail_outlines_tissue_and_tiles(tmp_path):
    tiles = SlideTiles(write_slide(tmp_path / "a.tif", 8, 6, 0.25), Tiling(256, 0.5))
    drawn = tiles.drawn
    assert drawn.shape == (768, 1024, 3)
    assert [4, 3] in tiles.cells.tolist()
    assert (drawn[384:512, 512] == (16, 48, 255)).all(1).mean() > 0.8
    assert (drawn == (0, 160, 0)).all(-1).any()


def _cut(path: Path) -> None:
    write_slide(path, 8, 6)
    path.write_bytes(path.read_bytes()[:-2000])


def _broken_tile(path: Path) -> None:
    write_slide(path, 8, 6)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        places = dict(zip(page.dataoffsets, page.databytecounts, strict=True))
    with path.open("r+b") as raw:
        for offset, count in places.items():
            raw.seek(offset)
            raw.write(b"\0" * count)


BAD = {
    "truncated": (_cut, "not a readable slide"),
    "a tile of zeros": (_broken_tile, "not a readable slide"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "another file": (lambda path: path.write_bytes(b"<html>"), "no slide that can be read"),
    "no µm/px": (lambda path: write_slide(path, 8, 6, mpp=0), "add --slide-mpp"),
    "too coarse": (lambda path: write_slide(path, 8, 6, mpp=0.9), "coarser than the 0.5 wanted"),
    "no tissue": (lambda path: write_slide(path, 8, 6, blank=True), "no tile with tissue; leave"),
    "16 bits": (
        lambda path: tifffile.imwrite(
            path, np.zeros((600, 600, 3), np.uint16), photometric="rgb", tile=(256, 256)
        ),
        "not a picture in RGB of 8 bits",
    ),
    "missing": (lambda path: None, "no such slide"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_slide_is_refused_in_one_line(tmp_path, kind):
    write, words = BAD[kind]
    write(tmp_path / "a.tif")
    with pytest.raises(SlideError, match=words) as raised:
        SlideTiles(tmp_path / "a.tif", Tiling(256, 0.5)).read(range(1))
    assert str(tmp_path / "a.tif") in str(raised.value) and "\n" not in str(raised.value)


def test_resolutions_of_printers_count_as_unknown(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, pattern(), photometric="rgb", tile=(256, 256), resolution=(72, 72), resolutionunit=2
    )
    assert PyramidalTiff(path).mpp == 0


def test_a_folder_of_images_holds_no_slides(tmp_path):
    for name in ("p/a.tif", "p/b.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_slide(tmp_path / name, 2, 2)
    assert [path.name for path in slides_in(tmp_path)] == ["a.tif", "b.svs"]
    write_image(tmp_path / "c.png", pattern(32))
    assert slides_in(tmp_path) == []
    write_image(tmp_path / "flat/c.tif", pattern(32))
    assert slides_in(tmp_path / "flat") == []
    with pytest.raises(DatasetNotFoundError, match="no such file or folder"):
        slides_in(tmp_path / "none")


MEMORY = """
import resource, sys
from pathlib import Path
from datamodules.slides.tiles import SlideTiles, Tiling
tiles = SlideTiles(Path(sys.argv[1]), Tiling(256, 0.5))
for number in range(0, len(tiles), max(1, len(tiles) // 60)):
    tiles.read(range(number, number + 1))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, tiles.width * tiles.height)
"""


def test_memory_does_not_grow_with_the_slide(tmp_path, repository):
    peaks = []
    for side in (16, 80):
        path = write_slide(tmp_path / f"{side}.tif", side, side, 0.25)
        command = [sys.executable, "-c", MEMORY, str(path)]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
        peak, pixels = map(int, done.stdout.split())
        peaks.append(peak)
    assert pixels > 1.6e9
    assert peaks[1] - peaks[0] < 60  # MB, of 5 GB of pixels
