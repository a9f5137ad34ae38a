"""The conventions for own data with a table: boxes in COCO's JSON, targets in CSV."""

import json

import numpy as np
import pytest

from datamodules.core.errors import ConfigError, DatasetNotFoundError, LayoutError
from datamodules.core.records import TaskKind
from datamodules.formats.images import read_image, write_image
from datamodules.prepare import prepare
from tests.support.image_files import oriented
from tests.support.readers import assert_refused, dataset, prepared


def write_coco(folder, boxes, names=("cell", "mitosis"), **entry):
    """One image of 60x40 px with boxes (category, x, y, width, height)."""
    write_image(folder / "images/patient01_1.png", np.zeros((40, 60, 3), np.uint8))
    data = {
        "images": [{"id": 7, "file_name": "patient01_1.png", "width": 60, "height": 40, **entry}],
        "categories": [{"id": 3 + i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": category, "bbox": box}
            for i, (category, *box) in enumerate(boxes)
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(data))
    return data


def write_table(folder, *lines):
    for k in range(8):
        write_image(folder / f"{k}.png", np.full((40, 40, 3), 20 * k, np.uint8))
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


# ---- COCO boxes ---------------------------------------------------------------------------


def test_coco_boxes_are_x_y_width_height(tmp_path):
    write_coco(tmp_path, [(3, 10, 5, 20, 30), (4, 0, 0, 8, 4)])
    module = dataset("coco_boxes", tmp_path, tmp_path / "stores", 64)
    store = prepared(module)
    assert store.tasks[0].classes == ("cell", "mitosis")
    boxes = store.boxes("boxes", 0)
    assert boxes.xyxy.tolist() == [[10, 5, 30, 35], [0, 0, 8, 4]]
    assert boxes.labels.tolist() == [0, 1]


def test_coco_classes_follow_the_options_and_groups_the_file_names(tmp_path):
    write_coco(tmp_path, [(3, 10, 5, 20, 30)])
    options = {"classes": ["mitosis", "cell"], "positive": "mitosis", "group": r"^(patient\d+)"}
    module = dataset("coco_boxes", tmp_path, tmp_path / "stores", mpp=0.25, **options)
    (record,) = module.records(tmp_path)
    assert record.targets["boxes"].labels.tolist() == [1]
    assert record.group == "patient01"
    assert module.tasks_in(tmp_path)[0].positive == "mitosis"
    assert module.native_mpp() == 0.25


def test_coco_rounding_at_the_edge_is_clipped_but_a_box_outside_is_refused(tmp_path):
    write_coco(tmp_path, [(3, -0.6, 5, 20, 35.4)])
    module = dataset("coco_boxes", tmp_path, tmp_path / "stores")
    (record,) = module.records(tmp_path)
    np.testing.assert_allclose(record.targets["boxes"].xyxy, [[0, 5, 19.4, 40]], rtol=1e-6)
    write_coco(tmp_path, [(3, -5, 5, 20, 20)])
    assert_refused(module, LayoutError, "images/patient01_1.png", "outside")


def test_coco_boxes_refer_to_the_image_as_displayed_or_the_file_is_refused(tmp_path):
    write_coco(tmp_path, [(3, 1, 2, 10, 12)])
    module = dataset("coco_boxes", tmp_path, tmp_path / "stores", 64)
    path, table = tmp_path / "images/patient01_1.png", tmp_path / "annotations.json"
    data, shown = json.loads(table.read_text()), read_image(path).copy()
    shown[2:14, 1:11] = (9, 0, 0)
    oriented(np.rot90(shown).copy(), 6)(path)  # stored lying on its side
    store = prepared(module)
    assert store.boxes("boxes", 0).xyxy.tolist() == [[1, 2, 11, 14]]
    assert (store.images([0])[0][2:14, 1:11] == (9, 0, 0)).all()
    module.store_path.unlink()
    (entry,) = data["images"]
    entry["width"], entry["height"] = shown.shape[0], shown.shape[1]
    table.write_text(json.dumps(data))
    size = f"{shown.shape[1]}x{shown.shape[0]} px as displayed"
    assert_refused(module, LayoutError, "patient01_1.png", size)


def test_coco_image_without_annotation_holds_no_object(tmp_path):
    write_coco(tmp_path, [])
    store = prepared(dataset("coco_boxes", tmp_path, tmp_path / "stores"))
    assert len(store) == 1
    assert len(store.boxes("boxes", 0)) == 0


def test_coco_splits_lie_in_folders_and_share_their_categories(tmp_path):
    raw = tmp_path / "raw"
    for split in ("train", "val"):
        write_coco(raw / split, [(3, 10, 5, 20, 30)])
    module = dataset("coco_boxes", raw, tmp_path / "stores")
    assert [r.split for r in module.records(raw)] == ["train", "val"]
    write_coco(raw / "val", [(3, 10, 5, 20, 30)], names=("cell", "nucleus"))
    assert_refused(module, LayoutError, "val/annotations.json", "nucleus")


def test_coco_refuses_inconsistent_files(tmp_path):
    data = write_coco(tmp_path, [(3, 10, 5, 20, 30)])
    module = dataset("coco_boxes", tmp_path, tmp_path / "stores")
    table = tmp_path / "annotations.json"
    note = data["annotations"][0]
    for change, words in (
        ({"image_id": 8}, ("annotations.json", "8")),
        ({"category_id": 9}, ("annotations.json", "category")),
        ({"bbox": [1, 2, 3]}, ("annotations.json", "box")),
        ({"iscrowd": 1}, ("annotations.json", "iscrowd")),
    ):
        table.write_text(json.dumps({**data, "annotations": [{**note, **change}]}))
        assert_refused(module, LayoutError, *words)
    table.write_text(json.dumps({"images": []}))
    assert_refused(module, LayoutError, "annotations.json", "COCO")
    table.write_text(json.dumps(data))
    (tmp_path / "images/patient01_1.png").unlink()
    assert_refused(module, DatasetNotFoundError, "images/patient01_1.png", "missing")
    strange = dataset("coco_boxes", tmp_path, tmp_path / "stores", classes=["cell"])
    assert_refused(strange, ConfigError, "mitosis")
    strange = dataset("coco_boxes", tmp_path, tmp_path / "stores", positive="nerve")
    assert_refused(strange, ConfigError, "nerve")


def test_coco_image_of_another_size_than_the_json_states_is_refused(tmp_path):
    write_coco(tmp_path, [(3, 10, 5, 20, 30)], width=40, height=60)
    module = dataset("coco_boxes", tmp_path, tmp_path / "stores")
    assert_refused(
        module, LayoutError, "patient01_1.png", "60x40 px as displayed", "states 40x60 px"
    )


def test_coco_images_that_the_json_does_not_list_are_counted(tmp_path):
    write_coco(tmp_path, [(3, 10, 5, 20, 30)])
    write_image(tmp_path / "images/more.png", np.zeros((40, 60, 3), np.uint8))
    line = prepare(dataset("coco_boxes", tmp_path, tmp_path / "stores"), workers=1).notes.line()
    assert "image that annotations.json does not list: 1" in line


@pytest.mark.parametrize("name", ["{folder}/elsewhere.png", "../../elsewhere.png"])
def test_coco_names_that_leave_the_folder_need_the_option(tmp_path, name):
    write_image(tmp_path / "elsewhere.png", np.full((40, 60, 3), 9, np.uint8))
    write_coco(tmp_path / "raw", [(3, 10, 5, 20, 30)], file_name=name.format(folder=tmp_path))
    module = dataset("coco_boxes", tmp_path / "raw", tmp_path / "stores", 64)
    assert_refused(module, LayoutError, "images[0]", "leaves the dataset's folder")
    asked = dataset("coco_boxes", tmp_path / "raw", tmp_path / "stores", 64, allow_outside=True)
    assert prepared(asked).images([0])[0, 0, 0, 0] == 9


# ---- CSV table ----------------------------------------------------------------------------


def test_csv_names_are_classes(tmp_path):
    write_table(tmp_path, "image,target", "3.png,benign", "1.png,malignant")
    module = dataset("csv_table", tmp_path, tmp_path / "stores", 40)
    store = prepared(module)
    assert store.tasks[0].kind is TaskKind.CLASSIFICATION
    assert (store.tasks[0].classes, store.tasks[0].positive) == (
        ("benign", "malignant"),
        "malignant",
    )
    assert store.target("target").tolist() == [0, 1]
    assert store.images([0, 1])[:, 0, 0, 0].tolist() == [60, 20]


def test_csv_decimal_numbers_are_values_and_other_columns_split_and_group(tmp_path):
    write_table(
        tmp_path,
        "group,image,split,target,comment",
        "p1,0.png,train,0.25,x",
        "p1,1.png,train,1,",
        "p2,2.png,test,0.5,y",
    )
    module = dataset("csv_table", tmp_path, tmp_path / "stores", low=0, high=1)
    store = prepared(module)
    assert (store.tasks[0].kind, store.tasks[0].low, store.tasks[0].high) == (
        TaskKind.REGRESSION,
        0.0,
        1.0,
    )
    assert store.target("target").tolist() == [0.25, 1.0, 0.5]
    assert store.split.tolist() == [0, 0, 2]
    assert store.group_names == ["p1", "p2"]


def test_csv_whole_numbers_are_not_guessed(tmp_path):
    write_table(tmp_path, "image,target", "0.png,0", "1.png,1", "2.png,1")
    asked = dataset("csv_table", tmp_path, tmp_path / "stores")
    assert_refused(asked, ConfigError, "kind: classification", "kind: regression")
    named = dataset("csv_table", tmp_path, tmp_path / "stores", kind="classification")
    assert named.tasks_in(tmp_path)[0].classes == ("0", "1")
    valued = dataset("csv_table", tmp_path, tmp_path / "stores", kind="regression")
    assert [r.targets["target"] for r in valued.records(tmp_path)] == [0.0, 1.0, 1.0]


def test_csv_spellings_of_one_group_are_one_patient_and_counted(tmp_path):
    write_table(tmp_path, "image,target,Group", "0.png,a,P7", "1.png,b, p7", "2.png,a,p8")
    module = dataset("csv_table", tmp_path, tmp_path / "stores")
    done = prepare(module, workers=1)
    assert module.store.group_names == ["P7", "p8"]
    assert module.store.group.tolist() == [0, 0, 1]
    assert "group read as 'P7': 1" in done.notes.line()
    assert "read as column 'group': 1" in done.notes.line()
    assert "image that table.csv does not list: 5" in done.notes.line()


def test_csv_names_that_leave_the_folder_need_the_option(tmp_path):
    write_table(tmp_path / "raw", "image,target", f"{tmp_path}/9.png,a", "1.png,b")
    write_image(tmp_path / "9.png", np.full((40, 40, 3), 9, np.uint8))
    asked = dataset("csv_table", tmp_path / "raw", tmp_path / "stores", 40, allow_outside=True)
    assert prepared(asked).images([0])[0, 0, 0, 0] == 9


@pytest.mark.parametrize(
    ("lines", "options", "error", "words"),
    [
        (("image,label", "0.png,a"), {}, LayoutError, ("table.csv", "target")),
        (("image,target", "0.png,a", "1.png,a"), {}, LayoutError, ("table.csv", "two")),
        (("image,target", "9.png,a", "1.png,b"), {}, DatasetNotFoundError, ("9.png",)),
        (("image,target", "0.png,a", "1.png,"), {"classes": ["a", "b"]}, LayoutError, ("1.png",)),
        (("image,target", "0.png,a", "1.png,b"), {"positive": "c"}, ConfigError, ("'c'",)),
        (("image,target,split", "0.png,a,fit", "1.png,b,test"), {}, LayoutError, ("fit",)),
        (("image,target,group", "0.png,a,", "1.png,b,p"), {}, LayoutError, ("0.png", "group")),
        (("image,target", "0.png,0.5", "1.png,1.5"), {"high": 1.0}, LayoutError, ("1.5",)),
        (("image,target", "0.png,0.5", "1.png,x"), {"kind": "regression"}, LayoutError, ("'x'",)),
        (("image,target", "0.png,a", "0.png,b"), {}, LayoutError, ("0.png", "line 3", "line 2")),
        (("image,target", "0.png,a", "./0.png,b"), {}, LayoutError, ("0.png", "line 3")),
        (("image,target", "0.png,a", ".\\0.png,b"), {}, LayoutError, ("0.png", "line 3")),
        (
            ("image,target", "0.png,0.5", "1.png,NA", "2.png,0.1"),
            {},
            LayoutError,
            ("'NA'", "line 3"),
        ),
        (("image,target", '0.png,"0,5"', '1.png,"0,7"'), {}, LayoutError, ("comma", "line 2")),
        (("image,target", "0.png,a", "1.png,NA"), {}, LayoutError, ("missing value", "line 3")),
        (("image,target", "0.png,a", "1.png,b", "2.png,A"), {}, LayoutError, ("'A'", "'a'")),
        (("image,target", "0.png,0.5", "1.png,inf"), {}, LayoutError, ("'inf'", "line 3")),
        (("image,target", "../x/0.png,a", "1.png,b"), {}, LayoutError, ("leaves", "line 2")),
        (("image,target,grup", "0.png,a,p", "1.png,b,p"), {}, LayoutError, ("grup", "'group'")),
        (("image,target", "0.png,0.5"), {"low": 1, "high": 0}, ConfigError, ("low", "high")),
    ],
)
def test_csv_refuses_invalid_lines(tmp_path, lines, options, error, words):
    write_table(tmp_path, *lines)
    assert_refused(dataset("csv_table", tmp_path, tmp_path / "stores", **options), error, *words)
