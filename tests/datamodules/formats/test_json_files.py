"""JSON and COCO files, read strictly."""

import json

import pytest

from datamodules.core.errors import LayoutError
from datamodules.core.notes import collecting
from datamodules.formats.coco import read_coco
from datamodules.formats.json_files import read_json


def coco(**changes):
    data = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 60, "height": 40},
            {"id": 2, "file_name": "b.png", "width": 60, "height": 40},
        ],
        "categories": [{"id": 10, "name": "late"}, {"id": 9, "name": "early"}],
        "annotations": [
            {"id": 1, "image_id": 2, "category_id": 10, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 2, "category_id": 9, "bbox": [5, 6, 7, 8.5]},
        ],
    }
    return {**data, **changes}


def read(folder, data, **options):
    path = folder / "a.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return read_coco(folder, path, **options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1, column 2: not readable as JSON"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": ' + "9" * 5000 + "}", "not readable as JSON"),
        ('{"a": 1, "a": 2}', "key 'a' stands twice"),
        ("[" * 100_000 + "]" * 100_000, "too deep"),
    ],
)
def test_json_that_python_would_take_or_choke_on_is_refused(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(LayoutError, match=r"a\.json") as caught:
        read_json(tmp_path, tmp_path / "a.json")
    assert words in str(caught.value)


def test_coco_boxes_become_corners_by_the_ids_of_images_and_categories(tmp_path):
    found = read(tmp_path, coco())
    assert found.categories == ("early", "late")
    assert found.images[1].size == (40, 60)
    assert found.objects == {2: [([1, 2, 4, 6], "late"), ([5, 6, 12, 14.5], "early")]}
    corners = [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 2, 3, 4]}]
    assert read(tmp_path, coco(annotations=corners), corners=True).objects == {
        1: [([1, 2, 3, 4], "early")]
    }


IMAGE, NOTE = coco()["images"][0], coco()["annotations"][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": coco()["images"] * 2}, "images[2]: id 1 occurs twice"),
        ({"images": [IMAGE, {**IMAGE, "id": 2}]}, "images[1]: two images are the file a.png"),
        ({"images": [IMAGE, {**IMAGE, "id": 2, "file_name": "./a.png"}]}, "two images are"),
        ({"images": [{**IMAGE, "file_name": "../a.png"}]}, "leaves the dataset's folder"),
        ({"images": [{**IMAGE, "file_name": "/a.png"}]}, "leaves the dataset's folder"),
        ({"images": [{**IMAGE, "width": 60.5}]}, "images[0].width: 60.5 is not a whole number"),
        ({"images": [{**IMAGE, "width": "60"}]}, "images[0].width: is 60, expected a number"),
        ({"images": [{**IMAGE, "width": None}]}, "only one of height and width"),
        ({"images": {"id": 1}}, "images: is {'id': 1}, expected a list"),
        ({"images": [7]}, "images[0]: is 7, expected an object"),
        ({"images": None}, "COCO's format: no 'images'"),
        ({"categories": [{"id": 9, "name": "a"}, {"id": 10, "name": "A "}]}, "two categories"),
        ({"categories": [{"id": 9, "name": "a"}, {"id": 9, "name": "b"}]}, "categories[1]: id 9"),
        ({"annotations": [{**NOTE, "image_id": 7}]}, "belongs to image 7, which is not listed"),
        ({"annotations": [{**NOTE, "image_id": "2"}]}, "belongs to image 2, which is not listed"),
        ({"annotations": [{**NOTE, "category_id": 1}]}, "category_id 1, which is not listed"),
        ({"annotations": [NOTE, NOTE]}, "annotations[1]: id 1 occurs twice"),
        ({"annotations": [{**NOTE, "bbox": [1, 2, -3, 4]}]}, "ends before it begins"),
        ({"annotations": [{**NOTE, "bbox": [1, 2, 3]}]}, "bbox: 3 numbers, expected 4"),
        ({"annotations": [{**NOTE, "bbox": [1, 2, 3, True]}]}, "bbox[3]: is True, expected"),
        ({"annotations": [{**NOTE, "iscrowd": 1}]}, "iscrowd"),
        ({"annotations": "none"}, "annotations: is none, expected a list"),
    ],
)
def test_coco_that_contradicts_itself_is_refused_by_its_place(tmp_path, changes, words):
    with pytest.raises(LayoutError, match=r"^a\.json: ") as caught:
        read(tmp_path, coco(**changes))
    assert words in str(caught.value)


def test_a_coco_box_without_area_is_counted_and_left_out(tmp_path):
    with collecting() as notes:
        found = read(tmp_path, coco(annotations=[NOTE, {**NOTE, "id": 2, "bbox": [1, 2, 0, 4]}]))
    assert found.objects == {2: [([1, 2, 4, 6], "late")]}
    assert notes.line() == "1 skipped (box without area: 1)"


def test_the_real_midogpp_json_is_read_whole(official):
    root = official("midogpp").root
    with collecting() as notes:
        found = read_coco(root, root / "MIDOG++.json", corners=True)
    assert len(found.images) == 553
    assert sum(map(len, found.objects.values())) == 26_286
    assert notes.counts == {}
