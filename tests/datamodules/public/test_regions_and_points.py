"""Readers of regions, outlines and points: BCSS, TNBC, TUPAC16, OCELOT."""

import csv
import json
import shutil
from collections import Counter

import numpy as np
import pytest

from datamodules.core.errors import DatasetNotFoundError, ImageError, LayoutError
from datamodules.core.records import Boxes
from datamodules.formats.images import read_image, read_mask, write_image
from datamodules.public.bcss import CODES, GROUPS, split_of
from datamodules.public.tupac16 import read_points
from tests.support.readers import assert_refused, dataset, prepared

# ---- BCSS ---------------------------------------------------------------------------------


def test_bcss_codes_match_the_published_table(real_samples):
    table = real_samples / "official/bcss/meta/gtruth_codes.tsv"
    with table.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {int(row["GT_code"]): row["label"] for row in rows} == dict(enumerate(CODES))


def test_bcss_split_has_the_published_sizes(real_samples):
    with (real_samples / "official/bcss/meta/roiBounds.csv").open() as file:
        names = [row[""] for row in csv.DictReader(file)]
    splits = Counter(split_of(name.split("-")[1]) for name in names)
    assert splits == {"train": 76, "val": 30, "test": 45}


def test_bcss_real_region_is_stored_pixel_by_pixel_with_its_mask(real_samples, tmp_path):
    folder = real_samples / "folders/bcss_tumour"
    image = read_image(folder / "images/1019.jpg")[:700, :600]
    tumour = read_mask(folder / "masks/1019.png")[:700, :600]
    assert 0.05 < tumour.mean() < 0.95
    name = "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png"
    top = tmp_path / "raw/0_Public-data-Amgad2019_0.25MPP"
    write_image(top / "rgbs_colorNormalized" / name, image)
    write_image(top / "masks" / name, np.where(tumour, 1, 21).astype(np.uint8))
    store = prepared(dataset("bcss", tmp_path / "raw", tmp_path / "stores", target_mpp=0.0))
    assert len(store) == 3 * 3
    np.testing.assert_array_equal(store.images([8])[0], image[-256:, -256:])
    expected = np.where(tumour, GROUPS.index("tumor"), GROUPS.index("other"))
    np.testing.assert_array_equal(store.masks("tissue", [8])[0], expected[-256:, -256:])
    assert store.group_names == ["TCGA-A1-A0SK"]
    assert store.split.tolist() == [1] * 9  # institute A1 validates


def test_bcss_groups_codes_into_five_classes_and_ignores_unlabelled_pixels(forged, tmp_path):
    grouped = dataset("bcss", forged("bcss"), tmp_path)
    raw = dataset("bcss", forged("bcss"), tmp_path, classes="codes")
    assert grouped.tasks_in(grouped.root)[0].classes == GROUPS
    assert raw.tasks_in(raw.root)[0].classes == CODES
    groups = {1: 0, 19: 0, 20: 0, 2: 1, 3: 2, 10: 2, 11: 2, 4: 3, 0: 255, 7: 255, 15: 255}
    pairs = zip(grouped.records(grouped.root), raw.records(raw.root), strict=True)
    for few, many in pairs:
        path = grouped.root / few.source.replace("rgbs_colorNormalized", "masks")
        published = read_mask(path)
        assert {0, 1, 2, 3, 4, 7} <= set(np.unique(published).tolist())
        expected = np.vectorize(lambda code: groups.get(code, 4))(published)
        np.testing.assert_array_equal(few.targets["tissue"](), expected)
        kept = ~np.isin(published, (0, 7, 15))
        np.testing.assert_array_equal(many.targets["tissue"]()[kept], published[kept])
        assert (many.targets["tissue"]()[~kept] == 255).all()


def test_bcss_in_two_folders_at_once_is_refused(forged_copy):
    module = forged_copy("bcss")
    for copy in ("first", "second"):
        for name in ("rgbs_colorNormalized", "masks"):
            shutil.copytree(module.root / name, module.root / copy / name)
    for name in ("rgbs_colorNormalized", "masks"):
        shutil.rmtree(module.root / name)
    assert_refused(module, LayoutError, "first, second", "keep one")


def test_bcss_every_published_code_has_its_class(tmp_path):
    name = "TCGA-A1-A0SK-DX1_xmin1_ymin1_MPP-0.2500.png"
    write_image(tmp_path / "rgbs_colorNormalized" / name, np.zeros((1, 22, 3), np.uint8))
    write_image(tmp_path / "masks" / name, np.arange(22, dtype=np.uint8)[None])
    (record,) = dataset("bcss", tmp_path, tmp_path).records(tmp_path)
    expected = [255, 0, 1, 2, 3, 4, 4, 255, 4, 4, 2, 2, 4, 4, 4, 255, 4, 4, 4, 0, 0, 4]
    assert record.targets["tissue"]().tolist() == [expected]


def test_bcss_splits_by_institute(forged, tmp_path):
    module = dataset("bcss", forged("bcss"), tmp_path)
    splits = {r.group.split("-")[1]: r.split for r in module.records(module.root)}
    assert splits == dict(AR="train", D8="train", A2="train", AC="train", BH="val", OL="test")


def test_bcss_refuses_unknown_codes_other_sizes_and_half_a_pair(forged_copy):
    module = forged_copy("bcss")
    mask = sorted((module.root / "masks").iterdir())[0]
    image = module.root / "rgbs_colorNormalized" / mask.name
    codes = read_mask(mask)
    write_image(mask, np.where(codes == 2, 22, codes).astype(np.uint8))
    assert_refused(module, LayoutError, mask.name, "22")
    write_image(mask, codes[:-1])
    assert_refused(module, LayoutError, mask.name, "800x639", "800x640")
    mask.unlink()
    assert_refused(module, LayoutError, f"rgbs_colorNormalized/{image.name}", "annotation")
    write_image(mask, codes)
    shutil.copy(image, image.with_suffix(".jpg"))
    assert_refused(module, LayoutError, image.name, "same name")
    image.with_suffix(".jpg").unlink()
    image.rename(image.with_name("region.png"))
    mask.rename(mask.with_name("region.png"))
    assert_refused(module, LayoutError, "region.png", "MPP-0.2500")
    image.with_name("region.png").unlink()
    assert_refused(module, DatasetNotFoundError, "masks/region.png", "missing")


# ---- TNBC ---------------------------------------------------------------------------------


def test_tnbc_real_nuclei_are_stored_pixel_by_pixel_and_are_dark(real_samples, tmp_path):
    folder = real_samples / "folders/tnbc_nuclei"
    image = read_image(folder / "images/1014.jpg")
    nuclei = read_mask(folder / "masks/1014.png")
    root = tmp_path / "raw/TNBC_NucleiSegmentation"
    write_image(root / "Slide_01/01_1.png", image)
    write_image(root / "GT_01/01_1.png", nuclei * 255)
    module = dataset("tnbc", tmp_path / "raw", tmp_path / "stores", target_mpp=0.0)
    store = prepared(module)
    np.testing.assert_array_equal(store.images([0])[0], image[:256, :256])
    stored = store.masks("nuclei", range(len(store)))
    np.testing.assert_array_equal(stored[0], nuclei[:256, :256])
    red = store.images(range(len(store)))[..., 0].astype(float)
    assert red[stored == 1].mean() < red[stored == 0].mean() - 30
    assert red[stored == 1].mean() < red[stored.transpose(0, 2, 1) == 1].mean() - 10


def test_tnbc_groups_by_patient(forged, tmp_path):
    store = prepared(dataset("tnbc", forged("tnbc"), tmp_path))
    assert store.group_names == ["patient 01", "patient 02", "patient 03"]
    assert np.bincount(store.group).tolist() == [2, 2, 2]


def test_tnbc_refuses_folders_and_files_without_partner(forged_copy):
    module = forged_copy("tnbc")
    (module.root / "GT_02/02_1.png").unlink()
    assert_refused(module, LayoutError, "Slide_02/02_1.png", "GT_02/02_1.png")
    (module.root / "Slide_02/02_1.png").unlink()
    (module.root / "Slide_02/02_2.png").unlink()
    assert_refused(module, LayoutError, "Slide_02", "no image")
    shutil.rmtree(module.root / "Slide_02")
    assert_refused(module, DatasetNotFoundError, "no folder Slide_02")
    shutil.rmtree(module.root / "GT_02")
    shutil.rmtree(module.root / "GT_03")
    assert_refused(module, DatasetNotFoundError, "no folder GT_03")


def test_tnbc_masks_in_colour_count_wherever_they_are_not_black(tmp_path):
    mask = np.zeros((300, 300, 3), np.uint8)
    mask[10:20, 30:50] = (255, 0, 0)
    write_image(tmp_path / "Slide_01/01_1.png", np.full_like(mask, 200))
    write_image(tmp_path / "GT_01/01_1.png", mask)
    (record,) = dataset("tnbc", tmp_path, tmp_path).records(tmp_path)
    np.testing.assert_array_equal(record.targets["nuclei"](), mask[..., 0] > 0)


# ---- TUPAC16 ------------------------------------------------------------------------------


def test_tupac16_labels_have_the_published_counts(official):
    root = official("tupac16").root
    counts = {}
    for kind in ("mitoses", "nonmitoses"):
        tables = sorted((root / "TUPAC_AL" / f"{kind}_ground_truth").glob("*/*.csv"))
        counts[kind] = sum(len(read_points(table)) for table in tables)
        assert len(tables) == 656
        assert len({table.parent for table in tables}) == 73
    assert counts == {"mitoses": 1999, "nonmitoses": 10_483}


def test_tupac16_names_the_first_image_that_is_missing(official):
    assert_refused(official("tupac16"), DatasetNotFoundError, "01/01.tif", "annotated")


def test_tupac16_real_points_have_the_row_first(official, tmp_path):
    root = official("tupac16").root
    for kind in ("mitoses", "nonmitoses"):
        name = f"TUPAC_AL/{kind}_ground_truth/35"  # 35 is higher than wide or the reverse
        shutil.copytree(root / name, tmp_path / "raw" / name)
    points = [read_points(table) for table in sorted((tmp_path / "raw").rglob("35/01.csv"))]
    x, y = np.concatenate(points).max(axis=0)
    assert (y, x) == (4055, 5234)
    write_image(tmp_path / "raw/35/01.tif", np.zeros((4100, 5300, 3), np.uint8))
    (record,) = dataset("tupac16", tmp_path / "raw", tmp_path).records(tmp_path / "raw")
    boxes = record.targets["mitosis"]()
    assert np.bincount(boxes.labels, minlength=2).tolist() == [len(part) for part in points]
    assert (boxes.xyxy[:, [0, 2]].mean(axis=1).max(), record.group) == (5234, "case 35")


def test_tupac16_boxes_lie_on_dark_figures(forged, tmp_path):
    module = dataset("tupac16", forged("tupac16"), tmp_path)
    records = list(module.records(module.root))
    for record in records[:-1]:
        red, boxes = read_image(record.image)[..., 0], record.targets["mitosis"]()
        sides = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
        assert sides.max() == 50
        centres = ((boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2).astype(int)
        whole = (sides == 50).all(axis=1)
        there = [red[y - 8 : y + 8, x - 8 : x + 8].min() for x, y in centres[whole]]
        assert np.mean(there) < np.quantile(red, 0.1), record.source
    assert len(records[-1].targets["mitosis"]()) == 0  # two empty files
    assert [record.group for record in records] == ["case 01"] * 3 + ["case 02"] * 3


def test_tupac16_boxes_are_clipped_at_every_edge(forged_copy):
    module = forged_copy("tupac16")
    table = module.root / "TUPAC_AL/mitoses_ground_truth/01/01.csv"
    table.write_text("3,300\n300,2\n639,638\n")
    boxes = next(module.records(module.root)).targets["mitosis"]()
    assert boxes.xyxy[:3].tolist() == [
        [275, 0, 325, 28],
        [0, 275, 27, 325],
        [613, 614, 640, 640],
    ]


def test_tupac16_thins_empty_training_tiles(forged, tmp_path):
    stores = [
        prepared(dataset("tupac16", forged("tupac16"), tmp_path, 128, empty_share=share))
        for share in (0.0, 0.3, 1.0)
    ]
    objects = [[len(s.boxes("mitosis", i)) for i in range(len(s))] for s in stores]
    assert sum(objects[0]) == sum(objects[1]) == sum(objects[2]) > 0
    empty = [counts.count(0) for counts in objects]
    assert empty[0] == 0 < empty[1] < 0.6 * empty[2]


def test_tupac16_refuses_points_outside_broken_lines_and_missing_tables(forged_copy):
    module = forged_copy("tupac16")
    table = module.root / "TUPAC_AL/mitoses_ground_truth/01/01.csv"
    text = table.read_text()
    table.write_text(text + "100,900\n")
    assert_refused(module, LayoutError, "01/01.tif", "outside")
    table.write_text(text + "100\n")
    assert_refused(module, LayoutError, "mitoses_ground_truth/01/01.csv", "line")
    table.unlink()
    assert_refused(module, LayoutError, "mitoses_ground_truth/01/01.csv", "missing")
    table.write_text(text)
    image = next(module.root.rglob("01/01.tif"))
    shutil.copytree(image.parent, module.root / "01")
    assert_refused(module, LayoutError, "01/01.tif", "keep one")
    shutil.rmtree(module.root / "01")
    image.write_bytes(b"II*\0")
    assert_refused(module, ImageError, "01.tif")
    image.unlink()
    assert_refused(module, DatasetNotFoundError, "01/01.tif")


# ---- OCELOT -------------------------------------------------------------------------------


def test_ocelot_points_become_boxes_around_nuclei(forged, tmp_path):
    module = dataset("ocelot", forged("ocelot"), tmp_path)
    for record in module.records(module.root):
        boxes: Boxes = record.targets["cells"]()
        table = module.root / record.source.replace("images", "annotations").replace("jpg", "csv")
        points = np.array([line.split(",") for line in table.read_text().split()], int)
        np.testing.assert_array_equal(boxes.labels, points[:, 2] - 1)
        inner = ((points[:, :2] > 20) & (points[:, :2] < 748)).all(axis=1)
        middles = (boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2
        np.testing.assert_allclose(middles[inner], points[inner, :2])
        np.testing.assert_allclose((boxes.xyxy[:, 2:] - boxes.xyxy[:, :2])[inner], 40, atol=1e-3)
        red = read_image(record.image)[..., 0].astype(float)
        assert red[points[:, 1], points[:, 0]].mean() < red.mean() - 20
        assert record.mpp == 0.2


def test_ocelot_tissue_keeps_its_resolution_and_its_unknown_pixels(forged, tmp_path):
    module = dataset("ocelot", forged("ocelot"), tmp_path, part="tissue")
    store = prepared(module)
    assert store.mpp == pytest.approx(0.8)
    assert len(store) == 4 * len(list(module.records(module.root)))
    published = read_mask(module.root / "annotations/train/tissue/001.png")
    corner = np.array([9, 0, 1])[np.where(published == 255, 0, published)][-256:, -256:]
    stored = store.masks("tissue", [3])[0]
    np.testing.assert_array_equal(np.where(stored == 255, 9, stored), corner)
    assert (stored == 255).sum() == 3600


def test_ocelot_groups_by_slide_within_the_published_split(forged, tmp_path):
    module = dataset("ocelot", forged("ocelot"), tmp_path)
    records = list(module.records(module.root))
    assert Counter(r.split for r in records) == {"train": 2, "val": 2, "test": 2}
    assert all(count == 2 for count in Counter(r.group for r in records).values())


def test_ocelot_refuses_unlisted_pairs_unknown_labels_and_half_a_pair(forged_copy):
    module = forged_copy("ocelot")
    table = module.root / "annotations/train/cell/001.csv"
    text = table.read_text()
    table.write_text(text + "5,5,3\n")
    assert_refused(module, LayoutError, "images/train/cell/001.jpg", "class 2")
    table.write_text(text + "5,5,1.7\n")
    assert_refused(module, LayoutError, "001.csv", "column 'label'", "1.7 is not a whole number")
    table.write_text(text + text.splitlines()[0][:-1] + str(3 - int(text.splitlines()[0][-1])))
    assert_refused(module, LayoutError, "001.jpg", "labels of two classes")
    table.write_text(text + "x,y,label\n")
    assert_refused(module, LayoutError, "001.csv", "line")
    table.unlink()
    assert_refused(module, LayoutError, "images/train/cell/001.jpg", "001.csv")
    table.write_text(text)
    metadata = module.root / "metadata.json"
    data = json.loads(metadata.read_text())
    for mpp, words in ((0, "out of range"), ("0,2", "expected a number"), (0.25, "the same")):
        changed = json.loads(json.dumps(data))
        changed["sample_pairs"]["001"]["cell"]["resized_mpp_x"] = mpp
        metadata.write_text(json.dumps(changed))
        assert_refused(module, LayoutError, "metadata.json: sample_pairs.001.cell", words)
    metadata.write_text(json.dumps({"pairs": data["sample_pairs"]}))
    assert_refused(module, LayoutError, "metadata.json", "sample_pairs")
    del data["sample_pairs"]["001"]
    metadata.write_text(json.dumps(data))
    assert_refused(module, LayoutError, "metadata.json", "001.jpg")
    (module.root / "images/train/cell/001.jpg").unlink()
    assert_refused(module, DatasetNotFoundError, "annotations/train/cell/001.csv")
