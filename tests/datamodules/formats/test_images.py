"""Every kind of image file is read rightly or refused by name; the documents say so, too."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from datamodules.core.errors import DatasetNotFoundError, ImageError, LayoutError, UserError
from datamodules.core.notes import collecting
from datamodules.formats.images import (
    image_size,
    mask_palette,
    read_foreground,
    read_ids,
    read_image,
    read_mask,
    write_image,
)
from datamodules.formats.layout import list_images, walk_images
from tests.support.image_files import COLOURS, IDS, KINDS, RGB, Kind, huge_png, oriented, tiff

NAMES = [kind.what for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_an_image_is_read_rightly_or_refused_by_name(kind: Kind, tmp_path):
    path = tmp_path / kind.name
    kind.write(path)
    if isinstance(kind.image, str):
        with pytest.raises(ImageError, match=re.escape(kind.image)) as caught:
            read_image(path)
        assert str(caught.value).startswith(f"{path}: ") and "; " in str(caught.value)
        assert "\n" not in str(caught.value)
    else:
        image = read_image(path)
        assert image.dtype == np.uint8 and image.flags.c_contiguous
        np.testing.assert_allclose(image.astype(int), kind.image.astype(int), atol=kind.within)
        assert image_size(path) == kind.image.shape[:2]


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_mask_is_read_rightly_or_refused_by_name(kind: Kind, tmp_path):
    path = tmp_path / kind.name
    kind.write(path)
    if isinstance(kind.mask, str):
        with pytest.raises((ImageError, LayoutError), match=re.escape(kind.mask)) as caught:
            read_mask(path)
        assert str(caught.value).startswith(f"{path}: ") and "; " in str(caught.value)
    else:
        mask = read_mask(path)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, kind.mask)


def test_the_documents_list_what_these_tests_show(repository):
    text = (repository / "docs" / "image_formats.md").read_text(encoding="utf-8")
    shown = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert shown == [kind.row() for kind in KINDS]
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_every_orientation_is_turned_as_other_programs_turn_it(orientation, name, tmp_path):
    path = tmp_path / name
    extra = [(274, 3, 1, orientation, True)]
    write = tiff(RGB, photometric="rgb", extratags=extra)
    (write if name == "a.tif" else oriented(RGB, orientation))(path)
    oriented(RGB, orientation)(tmp_path / "reference.png")
    with PIL.Image.open(tmp_path / "reference.png") as image:
        reference = np.asarray(PIL.ImageOps.exif_transpose(image))
    with collecting() as notes:
        np.testing.assert_array_equal(read_image(path), reference)
    assert notes.total("warning") == (orientation > 1)
    assert image_size(path) == reference.shape[:2]


def test_the_only_bound_is_400_megapixels(tmp_path):
    huge_png(tmp_path / "a.png", 20_000, 20_000)
    assert image_size(tmp_path / "a.png") == (20_000, 20_000)
    write_image(tmp_path / "b.png", np.zeros((13_600, 13_600), np.uint8))  # 185 megapixels
    assert read_mask(tmp_path / "b.png").shape == (13_600, 13_600)


def test_numbers_of_instances_may_exceed_8_bits(tmp_path):
    numbers = IDS.astype(np.uint16) * 300
    PIL.Image.fromarray(numbers).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), numbers)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.gif", "a.tif"])
def test_the_palette_is_read_without_decoding(name, tmp_path):
    kind = next(k for k in KINDS if k.name == name and k.how == "its colours")
    kind.write(tmp_path / name)
    assert mask_palette(tmp_path / name)[:12] == COLOURS.tobytes()


def test_foreground_is_what_is_not_black(tmp_path):
    write_image(tmp_path / "a.png", np.where(IDS[..., None] > 0, RGB | 1, 0).astype(np.uint8))
    np.testing.assert_array_equal(read_foreground(tmp_path / "a.png"), IDS > 0)
    write_image(tmp_path / "b.png", IDS)
    np.testing.assert_array_equal(read_foreground(tmp_path / "b.png"), IDS > 0)


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "x.tif").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("x.tif", "pipe.png"):
        with pytest.raises(ImageError, match=f"{name}: is no regular file"):
            read_image(tmp_path / name)
    with pytest.raises(DatasetNotFoundError, match=r"a\.png: no such file"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if not isinstance(k.image, str)], ids=lambda k: k.what
)
def test_damage_anywhere_ends_in_a_picture_or_in_one_line_that_names_the_file(kind: Kind, tmp_path):
    path = tmp_path / kind.name
    kind.write(path)
    sound, rng = path.read_bytes(), np.random.default_rng(0)
    for at in rng.integers(0, len(sound), 25).tolist():
        for data in (sound[:at], sound[:at] + bytes([sound[at] ^ 0x41]) + sound[at + 1 :]):
            path.write_bytes(data)
            for read in (read_image, read_mask, image_size):
                try:
                    read(path)
                except UserError as error:
                    assert str(path) in str(error) and "\n" not in str(error)


def test_junk_and_hidden_files_are_no_images_and_the_rest_is_told(tmp_path):
    for name in ("b.png", "._b.png", ".hidden.png", "@eaDir/b.png", "__MACOSX/b.png", "in/a.png",
                 ".ipynb_checkpoints/b-checkpoint.png", ".git/b.png"):  # fmt: skip
        write_image(tmp_path / name, RGB)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "table.csv", "c.svs"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "x.tif").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with collecting() as notes:
        assert list_images(tmp_path) == [tmp_path / "b.png"]
    assert notes.counts == {
        ("skipped", "no image, by its ending"): 1,
        ("skipped", "hidden file, or a link to none"): 2,
    }
    assert walk_images(tmp_path) == [tmp_path / "b.png", tmp_path / "in" / "a.png"]


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    write_image(tmp_path / "b.png", RGB)
    os.rename(tmp_path / "b.png", os.fsencode(tmp_path) + b"/b\xe9.png")  # noqa: PTH104
    with pytest.raises(LayoutError, match=r"the name b\\udce9\.png is not UTF-8; rename it"):
        list_images(tmp_path)


def test_real_tiffs_are_read_as_pillow_reads_them(real_samples: Path):
    paths = sorted((real_samples / "official").glob("*/**/*.tif"))[::5]
    assert len(paths) > 5
    for path in paths:
        with PIL.Image.open(path) as image:
            np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))
