"""MIDOG++ on its real tables and on forged regions."""

import json
from collections import Counter

import numpy as np

from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.formats.images import read_image
from tests.support.readers import assert_refused, darkness, dataset, prepared


def test_midogpp_has_the_published_counts(official):
    module = official("midogpp")
    records = list(module.records(module.root))
    assert Counter(record.split for record in records) == {"train": 392, "test": 111}
    assert len({record.group for record in records}) == 503
    labels = np.concatenate([record.targets["mitosis"].labels for record in records])
    assert np.bincount(labels).tolist() == [11_937, 14_349]
    sides = np.concatenate([r.targets["mitosis"].xyxy for r in records])
    sides = sides[:, 2:] - sides[:, :2]
    assert sides.max() == 50  # x1, y1, x2, y2: read as width and height they would be huge
    assert (sides == 50).all(axis=1).mean() > 0.98


def test_midogpp_tables_without_images_are_refused(official):
    assert_refused(official("midogpp"), DatasetNotFoundError, "images/*.tiff", "figshare")


def test_midogpp_refuses_a_missing_labelled_image(forged_copy):
    module = forged_copy("midogpp")
    (module.root / "images/003.tiff").unlink()
    assert_refused(module, DatasetNotFoundError, "images/003.tiff", "its image is missing")


def test_midogpp_boxes_lie_on_dark_figures(forged, tmp_path):
    module = dataset("midogpp", forged("midogpp"), tmp_path)
    for record in module.records(module.root):
        density, boxes = darkness(read_image(record.image)), record.targets["mitosis"]
        centres = ((boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2).astype(int)
        whole = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2] == 50).all(axis=1)
        there = [density[y - 8 : y + 8, x - 8 : x + 8].max() for x, y in centres[whole]]
        assert np.mean(there) > np.quantile(density, 0.9), record.source


def test_midogpp_keeps_all_tiles_with_objects_and_a_share_of_the_others(forged, tmp_path):
    stores = {
        share: prepared(dataset("midogpp", forged("midogpp"), tmp_path, 128, empty_share=share))
        for share in (0.0, 0.25, 1.0)
    }
    empty = {share: tiles_without_objects(store, 0) for share, store in stores.items()}
    objects = {share: boxes_of(store) for share, store in stores.items()}
    assert objects[0.0] == objects[0.25] == objects[1.0] > 0
    assert empty[0.0] == 0
    assert 0.1 * empty[1.0] < empty[0.25] < 0.4 * empty[1.0]
    # The test images keep every tile, so that false positives count.
    assert len({tiles_without_objects(store, 2) for store in stores.values()}) == 1


def test_midogpp_reads_its_tables_beside_the_images_too(forged_copy):
    module = forged_copy("midogpp")
    before = [record.source for record in module.records(module.root)]
    for table in sorted((module.root / "databases").iterdir()):
        table.rename(module.root / table.name)
    assert [record.source for record in module.records(module.root)] == before


def test_midogpp_refuses_boxes_outside_unlisted_slides_and_broken_tables(forged_copy):
    module = forged_copy("midogpp")
    path = module.root / "databases/MIDOG++.json"
    text, data = path.read_text(), json.loads(path.read_text())
    data["annotations"][0]["bbox"] = [5000, 10, 5050, 60]
    path.write_text(json.dumps(data))
    assert_refused(module, LayoutError, "images/001.tiff", "outside")
    data["annotations"][0] = {**data["annotations"][0], "bbox": [0, 0, 50, 50], "image_id": 900}
    path.write_text(json.dumps(data))
    assert_refused(module, LayoutError, "MIDOG++.json", "900")
    path.write_text(text[:200])
    assert_refused(module, LayoutError, "MIDOG++.json")
    path.write_text(text)
    table = module.root / "databases/datasets_xvalidation.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    assert_refused(module, LayoutError, "datasets_xvalidation.csv", "Slide 6")
    table.unlink()
    assert_refused(module, DatasetNotFoundError, "datasets_xvalidation.csv")


def test_midogpp_scores_mitotic_figures_only(official):
    (task,) = official("midogpp").tasks
    assert task.classes == ("mitotic figure", "hard negative")
    assert task.positive == "mitotic figure"


def boxes_of(store):
    return sum(len(store.boxes("mitosis", index)) for index in range(len(store)))


def tiles_without_objects(store, split):
    rows = np.flatnonzero(store.split == split)
    return sum(not len(store.boxes("mitosis", int(row))) for row in rows)
