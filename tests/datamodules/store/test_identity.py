"""What holds for the records of every reader: identity of images and groups, links, options."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from datamodules.core.errors import ConfigError, LayoutError
from datamodules.core.notes import collecting
from datamodules.core.records import Boxes, Record
from datamodules.formats.images import write_image
from datamodules.formats.tree import check_links
from datamodules.prepare import fingerprint, prepare
from datamodules.store.identity import distinct
from tests.support.readers import assert_refused, dataset, prepared


def grey(path, value=100):
    write_image(path, np.full((40, 40, 3), value, np.uint8))


def record(source, group="g", image=None):
    return Record(source, image or (lambda: np.zeros((4, 4, 3), np.uint8)), {}, "train", group)


def test_groups_are_brought_to_their_first_spelling_and_counted():
    given = ("P7", " p7", "P8", "7", "7.0", "007", "70", "")
    with collecting() as notes:
        found = [
            r.group
            for r in distinct(Path(), (record(str(i), g) for i, g in enumerate(given)), False)
        ]
    assert found == ["P7", "P7", "P8", "7", "7", "7", "70", ""]
    assert notes.counts == {
        ("warning", "group read as 'P7'"): 1,
        ("warning", "group read as '7'"): 2,
    }


def test_one_image_in_two_unicode_spellings_or_by_a_link_is_refused(tmp_path):
    composed = unicodedata.normalize("NFC", "ä.png")
    with pytest.raises(LayoutError, match="occurs twice"):
        list(
            distinct(Path(), map(record, (composed, unicodedata.normalize("NFD", composed))), False)
        )
    raw = tmp_path / "raw"
    for name, value in (("train/a/1.png", 0), ("train/b/2.png", 50), ("val/b/3.png", 20)):
        grey(raw / name, value)
    (raw / "val/a").mkdir()
    (raw / "val/a/again.png").symlink_to("../../train/a/1.png")
    module = dataset("class_folders", raw, tmp_path / "stores")
    assert_refused(module, LayoutError, "val/a/again.png", "occurs twice", "by a link")


def test_files_that_differ_in_case_are_two_where_the_file_system_says_so(tmp_path):
    for name in ("a.png", "A.png"):
        grey(tmp_path / name)
    both = [record(n, image=tmp_path / n) for n in ("a.png", "A.png")]
    if len(list(tmp_path.iterdir())) == 2:
        assert len(list(distinct(tmp_path, iter(both), False))) == 2
    else:
        with pytest.raises(LayoutError, match="occurs twice"):
            list(distinct(tmp_path, iter(both), False))


def test_links_are_followed_inside_and_outside_only_where_asked(tmp_path):
    root, outside = tmp_path / "raw", tmp_path / "elsewhere.png"
    for name, value in (("benign/1.png", 0), ("malignant/2.png", 90)):
        grey(root / name, value)
    grey(outside, 200)
    (root / "benign/3.png").symlink_to(outside)
    module = dataset("class_folders", root, tmp_path / "stores")
    assert_refused(module, LayoutError, "benign/3.png", "links out", "follow_links=true")
    module.config.follow_links = True
    assert len(prepared(module)) == 3
    (root / "benign/3.png").unlink()
    (root / "benign/4.png").symlink_to("gone.png")
    module.config.follow_links = False
    assert "a link to none: 1" in prepare(module, workers=1).notes.line()


def test_links_that_loop_are_refused_and_do_not_hang(tmp_path):
    grey(tmp_path / "raw/a/1.png")
    (tmp_path / "raw/a/self").symlink_to("self")
    check_links(tmp_path / "raw", False)
    (tmp_path / "raw/a/up").symlink_to("..")
    fingerprint(tmp_path / "raw")
    with pytest.raises(LayoutError, match="a/up: links to a folder that holds it"):
        check_links(tmp_path / "raw", True)


def test_missing_images_are_counted_where_that_is_allowed(forged_copy):
    own = forged_copy("csv_table", allow_missing=True, kind="regression")
    first = next(own.records(own.root))
    first.image.unlink()
    done = prepare(own, workers=1)
    assert "listed image does not exist: 1" in done.notes.line()
    assert first.source not in {own.store.source(row) for row in range(len(own.store))}


@pytest.mark.parametrize("reader", ["class_folders", "image_masks", "coco_boxes", "csv_table"])
@pytest.mark.parametrize("mpp", [-1, 1e-6, 1e6, float("nan"), float("inf")])
def test_a_resolution_that_cannot_be_is_refused_before_anything_is_read(tmp_path, reader, mpp):
    with pytest.raises(ConfigError, match=r"options\.mpp"):
        dataset(reader, tmp_path, tmp_path, mpp=mpp)


@pytest.mark.parametrize(
    ("reader", "options"),
    [
        ("midogpp", {"empty_share": 2}),
        ("coco_boxes", {"object_size_um": 0}),
        ("coco_boxes", {"match_distance_um": float("nan")}),
        ("image_masks", {"foreground": 300}),
        ("csv_table", {"low": float("inf")}),
        ("idc", {"smallest_side": 0}),
    ],
)
def test_options_out_of_range_are_refused_by_name(tmp_path, reader, options):
    with pytest.raises(ConfigError, match=rf"data\.\*\..*options\.{next(iter(options))}="):
        dataset(reader, tmp_path, tmp_path, **options)


def test_options_that_came_later_leave_the_name_of_a_store_as_it_was(tmp_path):
    module = dataset("csv_table", tmp_path, tmp_path)
    assert set(module.settings()["options"]) == {
        *("kind", "classes", "positive", "low", "high", "mpp", "view")
    }
    assert dataset("idc", tmp_path, tmp_path).settings()["options"] == {}
    assert dataset("glas", tmp_path, tmp_path).settings()["options"] == {}
    assert dataset("breastpathq", tmp_path, tmp_path).settings()["options"] == {
        "allow_missing": False
    }
    changed = dataset("idc", tmp_path, tmp_path, smallest_side=1)
    assert changed.settings()["options"] == {"smallest_side": 1}
    assert changed.store_path != dataset("idc", tmp_path, tmp_path).store_path


def test_sets_without_an_object_and_images_without_one_are_counted(forged_copy):
    module = forged_copy("coco_boxes")
    table = module.root / "annotations.json"
    text = table.read_text()
    start = text.index('"annotations": [')
    table.write_text(text[:start] + '"annotations": []}')
    line = prepare(module, workers=1).notes.line()
    assert "no object of task 'boxes' in the whole dataset: 1" in line
    assert f"image without an object of task 'boxes': {module.store.attributes['records']}" in line
    assert isinstance(module.store.boxes("boxes", 0), Boxes)
