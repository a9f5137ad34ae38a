"""Readers of nuclei with types: CoNSeP, Lizard, CRCHistoPhenotypes, NuInsSeg and MoNuSAC."""

import re
import shutil
from collections import Counter

import numpy as np
import pytest
from scipy import ndimage

from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.notes import collecting
from datamodules.formats.annotations import typed_boxes
from datamodules.formats.images import read_ids, read_image, read_mask, write_image
from datamodules.formats.matlab import read_mat, write_mat
from datamodules.public.consep import CODES, GROUPS
from datamodules.public.monusac import CLASSES
from datamodules.store.attributes import notes_of
from tests.support.readers import assert_refused, darkness, dataset, prepared

# ---- CoNSeP -------------------------------------------------------------------------------


def test_consep_real_fields_in_the_official_layout_have_their_nuclei_in_place(
    real_samples, tmp_path
):
    crops = real_samples / "folders/consep"
    if not crops.is_dir():
        pytest.skip(f"no real sample {crops}")
    codes = np.array([0, 2, 3, 4, 5])  # of the classes in which the sample keeps its masks
    for number, path in enumerate(sorted((crops / "images").glob("train_1_0*.jpg"))[:3]):
        mask = read_mask(crops / "masks" / f"{path.stem}.png")
        write_image(tmp_path / f"raw/Train/Images/train_{number}.png", read_image(path))
        maps = {"inst_map": ndimage.label(mask)[0], "type_map": codes[mask]}
        write_mat(tmp_path / f"raw/Train/Labels/train_{number}.mat", maps)
    module = dataset("consep", tmp_path / "raw", tmp_path / "stores")
    for record in module.records(module.root):
        density = darkness(read_image(record.image))
        inside = record.targets["nuclei"]() > 0
        assert density[inside].mean() > 1.3 * density[~inside].mean(), record.source
        assert density[inside].mean() > 1.2 * density[inside.T].mean(), record.source
        boxes = record.targets["nuclei_detection"]()
        x, y = ((boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2).astype(int).T
        agree = record.targets["nuclei"]()[y, x] == boxes.labels + 1
        assert len(boxes) > 10 and agree.mean() > 0.8


def test_consep_groups_seven_codes_into_the_four_classes_of_its_authors(forged, tmp_path):
    few = dataset("consep", forged("consep"), tmp_path)
    many = dataset("consep", forged("consep"), tmp_path, classes="codes")
    assert few.tasks_in(few.root)[1].classes == GROUPS
    assert many.tasks_in(many.root)[1].classes == CODES
    groups, seen = np.array([0, 1, 2, 3, 3, 4, 4, 4]), set()
    for one, other in zip(few.records(few.root), many.records(many.root), strict=True):
        codes = other.targets["nuclei"]()
        seen |= set(np.unique(codes).tolist())
        np.testing.assert_array_equal(one.targets["nuclei"](), groups[codes])
        kinds = other.targets["nuclei_detection"]().labels + 1
        np.testing.assert_array_equal(one.targets["nuclei_detection"]().labels + 1, groups[kinds])
    assert seen >= {0, 2, 3, 5, 6, 7}
    assert Counter(record.split for record in few.records(few.root)) == {"train": 3, "test": 1}


def test_consep_refuses_maps_that_do_not_fit_and_missing_labels(forged_copy):
    module = forged_copy("consep")
    mat = module.root / "Train/Labels/train_1.mat"
    ids, kinds = read_mat(mat, "inst_map", "type_map")
    write_mat(mat, {"inst_map": ids, "type_map": np.where(kinds > 0, 8, 0)})
    assert_refused(module, LayoutError, "train_1.mat", "class 8")
    write_mat(mat, {"inst_map": ids, "type_map": kinds[:-1]})
    assert_refused(module, LayoutError, "train_1.mat", "type_map (511, 512)")
    mat.unlink()
    assert_refused(module, LayoutError, "train_1.png", "Train/Labels/train_1.mat")


def test_a_nucleus_without_any_class_is_left_out_and_counted():
    ids = np.array([[1, 1, 0, 2], [1, 1, 0, 2], [3, 3, 0, 0]])
    kinds = np.array([[2, 2, 0, 0], [2, 1, 0, 0], [5, 5, 0, 0]])
    with collecting() as notes:
        boxes = typed_boxes("a.mat", ids, kinds)
    assert boxes.xyxy.tolist() == [[0, 0, 2, 2], [0, 2, 2, 3]]
    assert boxes.labels.tolist() == [1, 4]
    assert notes.counts == {
        ("warning", "nucleus with pixels of several classes"): 1,
        ("skipped", "nucleus without class"): 1,
    }
    assert len(typed_boxes("a.mat", np.zeros((3, 3), int), np.zeros((3, 3), int))) == 0


# ---- Lizard -------------------------------------------------------------------------------


def test_lizard_takes_the_class_of_each_nucleus_by_its_id(forged, tmp_path):
    module = dataset("lizard", forged("lizard"), tmp_path)
    for record in module.records(module.root):
        name = record.source.rpartition("/")[2].replace(".png", ".mat")
        mat = next(module.root.rglob(name))
        ids, numbers, classes = read_mat(mat, "inst_map", "id", "class")
        assert numbers.max() > numbers.size  # ids have gaps
        mask, boxes = record.targets["nuclei"](), record.targets["nuclei_detection"]()
        for number, kind in zip(numbers.ravel(), classes.ravel(), strict=True):
            assert (mask[ids == number] == kind).all()
        assert sorted(boxes.labels + 1) == sorted(classes.ravel())


@pytest.mark.parametrize("part", [1, 2, 3])
def test_lizard_tests_on_the_part_that_is_asked_for(forged, tmp_path, part):
    module = dataset("lizard", forged("lizard"), tmp_path, test_part=part)
    lines = next(module.root.rglob("info.csv")).read_text().splitlines()[1:]
    listed = {
        name for name, _, number in (line.split(",") for line in lines) if number == str(part)
    }
    tested = {r.source for r in module.records(module.root) if r.split == "test"}
    assert {source.rpartition("/")[2][:-4] for source in tested} == listed


def test_lizard_is_read_however_deep_its_archives_lie_and_refuses_a_missing_one(forged_copy):
    module = forged_copy("lizard")
    before = [record.group.rpartition("/")[2] for record in module.records(module.root)]
    for folder in ("lizard_images1", "lizard_images2", "lizard_labels"):
        for inner in (module.root / folder).iterdir():
            inner.rename(module.root / inner.name)
        (module.root / folder).rmdir()
    assert [r.group.rpartition("/")[2] for r in module.records(module.root)] == before
    (module.root / "Lizard_Images2").rename(module.root / "other")
    assert_refused(module, DatasetNotFoundError, "Lizard_Images2")


# ---- CRCHistoPhenotypes -------------------------------------------------------------------


def test_crchisto_points_lie_on_nuclei_and_count_from_one(forged, tmp_path):
    module = dataset("crchisto", forged("crchisto"), tmp_path)
    for record in module.records(module.root):
        boxes = record.targets["nuclei_detection"]()
        density = darkness(read_image(record.image))
        x, y = ((boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2).astype(int).T
        assert density[y, x].mean() > 1.5 * density.mean()
    mat = module.root / "CRCHistoPhenotypes_2016_04_28/Classification/img1/img1_epithelial.mat"
    points = read_mat(mat, "detection")[0]
    inner = ((points > 20) & (points < 480)).all(axis=1)  # the boxes of others are clipped
    boxes = next(module.records(module.root)).targets["nuclei_detection"]().xyxy[: len(points)]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(middles[inner], points[inner] - 0.5, atol=1e-3)


def test_crchisto_counts_points_without_place_and_refuses_another_shape(forged_copy):
    module = forged_copy("crchisto")
    mat = next(module.root.rglob("img2_epithelial.mat"))
    write_mat(mat, {"detection": np.array([[np.nan, 3.0], [40.0, 50.0]])})
    write_mat(mat.with_name("img2_others.mat"), {"detection": np.array([[40.0, 50.0]])})
    with collecting():
        store = prepared(module)
    assert len(store.source_names) == 4
    line = notes_of(store.attributes).line()
    assert "point without place: 1" in line
    assert "the same point twice; its first class counts: 1" in line
    write_mat(mat, {"detection": np.ones((4, 3))})
    with pytest.raises(LayoutError, match=r"img2_epithelial.mat: detection has shape \(4, 3\)"):
        [record.targets["nuclei_detection"]() for record in module.records(module.root)]


# ---- NuInsSeg -----------------------------------------------------------------------------


def test_nuinsseg_ignores_vague_areas_under_either_name_of_their_folder(forged_copy):
    module = forged_copy("nuinsseg")
    records = list(module.records(module.root))
    assert len({record.group for record in records}) == 6
    for record in records:
        mask = record.targets["nuclei"]()
        name = record.source.replace("tissue images", "label masks modify").replace("png", "tif")
        ids = read_ids(module.root / name)
        np.testing.assert_array_equal(mask[mask != 255], ids[mask != 255] > 0)
        assert len(record.targets["nuclei_detection"]()) == len(np.unique(ids)) - 1
    masks = [record.targets["nuclei"]() for record in records]
    assert sum((mask[:80, :120] == 255).all() for mask in masks) == 3
    for folder in list(module.root.glob("*/vague areas/mask binary")):
        folder.rename(folder.with_name("mask binary_vague"))
    for record, mask in zip(module.records(module.root), masks, strict=True):
        np.testing.assert_array_equal(record.targets["nuclei"](), mask)


# ---- MoNuSAC ------------------------------------------------------------------------------


def test_monusac_reads_layers_as_classes_and_gives_unsure_nuclei_no_label(forged, tmp_path):
    module = dataset("monusac", forged("monusac"), tmp_path)
    records = list(module.records(module.root))
    assert Counter(record.split for record in records) == {"train": 4, "test": 2}
    assert {"TCGA-A2-A0ES"} == {r.group for r in records if r.split == "train"} & {
        r.group for r in records if r.split == "test"
    }
    assert [record.source[-4:] for record in records].count(".svs") == 1
    unsure = 0
    for record in records:
        mask, boxes = record.targets["nuclei"](), record.targets["nuclei_detection"]()
        text = (module.root / record.source).with_suffix(".xml").read_text()
        layers = re.split(r'<Attribute Name="(\w+)"/>', text)[1:]
        pairs = zip(layers[::2], layers[1::2], strict=True)
        counts = {name: part.count("<Region ") for name, part in pairs}
        unsure += counts.pop("Ambiguous", 0)
        assert (mask == 255).any() == ("Ambiguous" in text and record.split == "test")
        named = {CLASSES[label]: n for label, n in Counter(boxes.labels.tolist()).items()}
        assert named == {name: count for name, count in counts.items() if count}
    assert unsure > 0


def test_monusac_counts_nuclei_of_a_class_that_is_none(forged_copy):
    module = forged_copy("monusac")
    of_class = CLASSES.index("Lymphocyte")
    record = next(
        record
        for record in module.records(module.root)
        if of_class in record.targets["nuclei_detection"]().labels
    )
    path = (module.root / record.source).with_suffix(".xml")
    path.write_text(path.read_text().replace('Name="Lymphocyte"', 'Name="1"'))
    with collecting() as notes:
        mask = record.targets["nuclei"]()
    assert notes.total("warning") > 0
    assert {reason for _, reason in notes.counts} == {"nucleus of the unknown class '1'"}
    assert (mask == 255).any() and not (mask == 1 + of_class).any()


def test_monusac_needs_an_annotation_of_every_image(forged_copy):
    module = forged_copy("monusac")
    path = (module.root / next(module.records(module.root)).source).with_suffix(".xml")
    shutil.move(path, path.with_suffix(".bak"))
    assert_refused(module, LayoutError, path.stem, "has no annotation")
