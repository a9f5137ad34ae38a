"""What looks like damage but may be true is read, and counted with the dataset."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from datamodules.core.errors import LayoutError
from datamodules.core.notes import collecting
from datamodules.formats.images import read_image
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from tests.faults.text_damage import XLSX
from tests.support.readers import assert_refused

Copy = Callable[..., DatasetReader]
UNLISTED = "image that {} does not list"


def noted(module: DatasetReader, reason: str) -> int:
    """How often a dataset's preparation notes this."""
    counts = prepare(module, workers=1).notes.counts
    return sum(count for (_, other), count in counts.items() if other == reason)


def test_dsb2018_counts_the_fluorescence_that_it_leaves_out(official: Copy) -> None:
    module = official("dsb2018")
    folders = [p for p in (module.root / "stage1_train").iterdir() if p.is_dir()]
    images = [read_image(p / "images" / f"{p.name}.png") for p in folders]
    grey = sum(float(np.ptp(image, axis=2).mean()) < 10 for image in images)
    assert noted(module, "fluorescence or grey, not stained tissue") == grey


def test_a_grey_stained_image_of_dsb2018_is_not_lost_in_silence(forged_copy: Copy) -> None:
    module = forged_copy("dsb2018")
    before = len(list(module.records(module.root)))
    path = next(module.records(module.root)).image
    Image.open(path).convert("L").save(path)
    assert noted(module, "fluorescence or grey, not stained tissue") == 1
    assert len(module.store.source_names) == before - 1


def test_midogpp_counts_objects_whose_centre_lies_outside(official: Copy) -> None:
    module = official("midogpp")
    content = json.loads(next(module.root.rglob("MIDOG++.json")).read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    outside = 0
    for note in content["annotations"]:
        (x1, y1, x2, y2), (width, height) = note["bbox"], sizes[note["image_id"]]
        outside += not (0 <= (x1 + x2) / 2 <= width and 0 <= (y1 + y2) / 2 <= height)
    with collecting() as notes:
        list(module.records(module.root))
    assert outside > 0
    reason = "point outside of its image; its box is clipped"
    assert notes.counts == {("warning", reason): outside}


@pytest.mark.parametrize(
    ("name", "copy", "table"),
    [
        ("midogpp", "images/999.tiff", "MIDOG++.json"),
        ("sicapv2", "images/16B9999999_Block_Region_1_0_0_xini_0_yini_0.jpg", "partition/"),
        ("coco_boxes", "images/patient99_0.png", "annotations.json"),
    ],
)
def test_an_image_that_no_table_lists_is_counted(
    forged_copy: Copy, name: str, copy: str, table: str
) -> None:
    module = forged_copy(name)
    listed = next(iter(sorted((module.root / "images").iterdir())))
    shutil.copy(listed, module.root / copy)
    assert noted(module, UNLISTED.format(table)) == 1


def test_a_line_lost_from_a_table_of_sicapv2_is_counted(forged_copy: Copy) -> None:
    module = forged_copy("sicapv2")
    before = len(list(module.records(module.root)))
    XLSX["row gone"](module.root / "partition/Test/Test.xlsx", np.random.default_rng(0))
    assert noted(module, UNLISTED.format("partition/")) == 1
    assert len(module.store.source_names) == before - 1


def test_conic_counts_nuclei_whose_pixels_have_several_classes(forged_copy: Copy) -> None:
    module = forged_copy("conic")
    labels = np.load(module.root / "labels.npy")
    y, x = np.argwhere(labels[0, :, :, 0] > 0)[0]
    labels[0, y, x, 1] = 1 + labels[0, y, x, 1] % 6
    np.save(module.root / "labels.npy", labels)
    assert noted(module, "nucleus with pixels of several classes") == 1


def test_monuseg_counts_outlines_far_beyond_their_image(forged_copy: Copy) -> None:
    module = forged_copy("monuseg")
    for path, x in zip(sorted(module.root.rglob("*.xml")), ("-19", "-21", "1021"), strict=False):
        text = path.read_text()
        path.write_text(re.sub(r'X="[^"]+"', f'X="{x}"', text, count=1))
    assert noted(module, "outline far beyond its image; it is clipped") == 2


def test_a_mask_of_one_bit_holds_no_codes(forged_copy: Copy) -> None:
    module = forged_copy("bcss")
    path = next(iter(sorted((module.root / "masks").iterdir())))
    with Image.open(path) as mask:
        black_and_white = mask.point(lambda code: 255 * (code > 0), "1")
    black_and_white.save(path)
    assert_refused(module, LayoutError, path.name, "code 255")


def test_bach_counts_images_and_lines_of_its_table_without_each_other(forged_copy: Copy) -> None:
    module = forged_copy("bach")
    table = next(module.root.rglob("microscopy_ground_truth.csv"))
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[2:], "b099.tif,Benign"]) + "\n")
    assert noted(module, "the table of labels does not list it") == 2
    assert noted(module, "listed image does not exist") == 1
    assert len(module.store.source_names) == len(lines)
