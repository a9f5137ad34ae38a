from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import StoreError
from datamodules.core.records import Task, TaskKind
from datamodules.display.contact_sheet import (
    choose_rows,
    contact_sheet,
    label_text,
)
from datamodules.display.overlays import class_colours, paint_outlines
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store.class_balance import balance_lines
from datamodules.synthetic.forge import forge

NAMES = ("pannuke", "midogpp", "breastpathq", "bcss")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DatasetReader]:
    folder = tmp_path_factory.mktemp("gallery")
    data = DataConfig(root=str(folder / "data"), stores=str(folder / "stores"))
    built = {name: build(name, DatasetConfig(), data) for name in NAMES}
    for dataset in built.values():
        forge(dataset, 0, 12)
        prepare(dataset, workers=1)
    return built


@pytest.mark.parametrize("name", NAMES)
def test_a_contact_sheet_is_a_picture_of_many_colours(datasets, tmp_path, name):
    path = contact_sheet(datasets[name], tmp_path / "new" / f"{name}.png", images=7)
    with PIL.Image.open(path) as picture:
        assert picture.width > 1500
        assert len(np.unique(np.asarray(picture.convert("L")))) > 200


def test_a_contact_sheet_of_one_image_is_possible(datasets, tmp_path):
    contact_sheet(datasets["midogpp"], tmp_path / "one.png", images=1)
    with PIL.Image.open(tmp_path / "one.png") as picture:
        assert picture.width > 200


def test_a_contact_sheet_shows_boxes_in_the_colour_of_their_class(datasets, tmp_path):
    def green(path: Path) -> int:
        with PIL.Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)[200:-200]
        return int(((pixels[..., 1] > 180) & (pixels[..., 0] < 80) & (pixels[..., 2] < 80)).sum())

    mitoses = contact_sheet(datasets["midogpp"], tmp_path / "mitoses.png", images=12)
    values = contact_sheet(datasets["breastpathq"], tmp_path / "values.png", images=12)
    assert green(mitoses) > 500
    assert green(values) == 0


def test_an_unprepared_dataset_has_no_contact_sheet(tmp_path):
    data = DataConfig(root=str(tmp_path), stores=str(tmp_path))
    with pytest.raises(StoreError, match="datasets prepare"):
        contact_sheet(build("glas", DatasetConfig(), data), tmp_path / "x.png")


def test_classes_are_shown_in_turn(datasets):
    store = datasets["pannuke"].store
    labels = store.target("tissue")
    present = len(np.unique(labels))
    rows = choose_rows(store, present)
    assert len(np.unique(labels[rows])) == present
    assert rows.tolist() == choose_rows(store, present).tolist()
    assert len(choose_rows(store, 10_000)) == len(store)


def test_values_are_shown_from_low_to_high(datasets):
    store = datasets["breastpathq"].store
    values = store.target("cellularity")[choose_rows(store, 6)]
    assert (np.diff(values) >= 0).all()
    assert (values[0], values[-1]) == (
        store.target("cellularity").min(),
        store.target("cellularity").max(),
    )


def test_patches_with_objects_are_shown_first(datasets):
    store = datasets["midogpp"].store
    counts = [len(store.boxes("mitosis", row)) > 0 for row in choose_rows(store, len(store))]
    assert counts == sorted(counts, reverse=True)
    assert counts[0]


def test_each_class_has_its_own_colour_in_all_tasks():
    names = ("background", *(f"class {i}" for i in range(20)))
    tasks = (
        Task("regions", TaskKind.SEGMENTATION, names),
        Task("objects", TaskKind.DETECTION, names[1:4]),
        Task("grade", TaskKind.CLASSIFICATION, ("low", "high")),
    )
    colours = class_colours(tasks)
    assert list(colours) == list(names[1:])
    assert len(set(colours.values())) == 20


def test_outlines_lie_within_their_class_and_unlabelled_pixels_turn_grey():
    task = Task("t", TaskKind.SEGMENTATION, ("background", "gland"))
    mask = np.zeros((60, 60), np.uint8)
    mask[20:40, 20:40] = 1
    mask[:10] = 255
    image = np.full((60, 60, 3), (200, 20, 120), np.uint8)
    paint_outlines(image, mask, task, {"gland": "#00e000"})
    assert (image[20, 20:40] == (0, 224, 0)).all()
    assert (image[30, 30] == (200, 20, 120)).all()
    assert (image[19, 20:40] == (200, 20, 120)).all()
    assert (image[5, 5] == (196, 106, 156)).all()


def test_labels_are_words(datasets):
    store = datasets["pannuke"].store
    tissue = next(task for task in store.tasks if task.name == "tissue")
    assert label_text(store, tissue, 0) == tissue.classes[store.target("tissue")[0]]
    assert label_text(store, store.tasks[0], 0) == ""
    other = datasets["breastpathq"].store
    value = other.target("cellularity")[0]
    assert label_text(other, other.tasks[0], 0) == f"cellularity {value:.2f}"


def test_the_class_balance_is_one_line_per_task(datasets):
    lines = balance_lines(datasets["midogpp"].store)
    store = datasets["midogpp"].store
    objects = sum(len(store.boxes("mitosis", row)) for row in range(len(store)))
    assert len(lines) == 1
    assert lines[0].startswith("mitosis (objects): mitotic figure ")
    counts = [int(part.split("(")[0].split()[-1]) for part in lines[0].split(": ")[1].split(", ")]
    assert sum(counts) == objects
