"""Readers of the breast datasets for probes, on real files and forged copies."""

import shutil
from collections import Counter

import numpy as np
import PIL.Image
import pytest

from datamodules.checks.findings import Level
from datamodules.checks.verify import verify
from datamodules.core.errors import ConfigError, DatasetNotFoundError, LayoutError
from datamodules.core.notes import collecting
from datamodules.formats.images import read_image, write_image
from tests.support.readers import assert_refused, dataset, prepared

# ---- IDC ----------------------------------------------------------------------------------


def test_idc_has_the_real_patients_and_classes(official):
    module = official("idc")
    records = list(module.records(module.root))
    by_patient = Counter((record.group, record.targets["invasive"]) for record in records)
    assert by_patient == {
        ("14082", 0): 281,
        ("14082", 1): 197,
        ("14306", 0): 264,
        ("14306", 1): 167,
        ("8975", 0): 52,
        ("8975", 1): 51,
    }


def test_idc_patches_are_stored_pixel_by_pixel_and_edge_patches_mirrored(official):
    module = official("idc")
    store = prepared(module)
    assert (len(store), store.side) == (1012, 50)
    small = 0
    for index in range(len(store)):
        published = read_image(module.root / store.source(index))
        height, width = published.shape[:2]
        np.testing.assert_array_equal(store.images([index])[0, :height, :width], published)
        small += (height, width) != (50, 50)
    assert small == 1


def test_idc_counts_a_file_name_once_and_compares_its_class_with_the_folder(forged_copy):
    module = forged_copy("idc")
    records = list(module.records(module.root))
    assert (module.root / "IDC_regular_ps50_idx5").is_dir()
    assert len({path.name for path in module.root.rglob("*.png")}) == len(records)
    moved = next((module.root / "8817/0").iterdir())
    moved.rename(module.root / "8817/1" / moved.name)
    assert_refused(module, LayoutError, moved.name, "class 0", "folder 1")


def test_idc_is_read_when_only_the_nested_folder_exists(forged_copy):
    module = forged_copy("idc")
    for folder in module.root.iterdir():
        if folder.name.isdigit():
            shutil.rmtree(folder)
    assert {record.group for record in module.records(module.root)} == {"8800"}


def test_idc_refuses_a_patient_without_patches_and_a_patch_too_large(forged_copy):
    module = forged_copy("idc")
    (module.root / "9999").mkdir()
    assert_refused(module, LayoutError, "9999", "no image")
    (module.root / "9999").rmdir()
    path = next((module.root / "8817/0").iterdir())
    write_image(path, np.zeros((64, 50, 3), np.uint8))
    assert_refused(module, LayoutError, path.name, "50x64")


def test_idc_leaves_out_and_counts_the_narrowest_patches_of_real_slides(official, tmp_path):
    module = official("idc", "idc_186")
    with collecting() as notes:
        kept = {record.source for record in module.records(module.root)}
    left_out = notes.counts["skipped", "narrower than smallest_side"]
    whole = official("idc", "idc_186", smallest_side=1)
    records = {record.source: record for record in whole.records(whole.root)}
    sides = [min(read_image(whole.root / name).shape[:2]) for name in records.keys() - kept]
    assert left_out == len(sides) > 0
    assert max(sides) < 25


# ---- BreaKHis -----------------------------------------------------------------------------


def test_breakhis_has_the_real_classes_and_patients(official):
    module = official("breakhis")
    store = prepared(module)
    assert np.bincount(store.target("tumour")).tolist() == [15, 15]
    assert len(store.group_names) == 25
    assert "23060AB" in store.group_names
    assert store.tasks[0].positive == "malignant"


def test_breakhis_stores_the_centre_square(official):
    module = dataset_at_native_size(official("breakhis"), 460)
    store = prepared(module)
    index = next(i for i in range(len(store)) if height_of(module, store.source(i)) == 460)
    expected = read_image(module.root / store.source(index))[:, 120:580]
    np.testing.assert_array_equal(store.images([index])[0], expected)


def test_breakhis_keeps_patient_13412_together(forged, tmp_path):
    module = dataset("breakhis", forged("breakhis"), tmp_path)
    sources = [r.source for r in module.records(module.root) if r.group == "13412"]
    assert {source.split("/")[5] for source in sources} == {"ductal_carcinoma", "lobular_carcinoma"}


def test_breakhis_refuses_an_unknown_magnification_and_a_contradiction(forged_copy):
    with pytest.raises(ConfigError, match="50X"):
        forged_copy("breakhis", magnification="50X")
    module = forged_copy("breakhis")
    path = next(module.root.rglob("SOB_B_*.png"))
    path.rename(path.with_name(path.name.replace("SOB_B", "SOB_M")))
    assert_refused(module, LayoutError, path.name.replace("SOB_B", "SOB_M"), "disagree")


def test_breakhis_slides_without_the_magnification_are_counted_where_that_is_allowed(forged_copy):
    module = forged_copy("breakhis")
    folder = next(module.root.rglob("400X"))
    before = len(list(module.records(module.root)))
    gone = len(list(folder.iterdir()))
    folder.rename(folder.with_name("40X"))
    assert_refused(module, DatasetNotFoundError, folder.parent.name, "allow_missing=true")
    partial = forged_copy("breakhis", allow_missing=True)
    shutil.rmtree(folder)
    with collecting() as notes:
        assert len(list(partial.records(partial.root))) == before - gone
    assert notes.line() == "1 skipped (slide without this magnification: 1)"


def test_breakhis_real_slides_of_one_magnification_are_counted_for_another(official):
    module = official("breakhis", magnification="40X", allow_missing=True)
    with collecting() as notes:
        assert list(module.records(module.root)) == []
    assert notes.line() == "25 skipped (slide without this magnification: 25)"


# ---- BreastPathQ --------------------------------------------------------------------------


def test_breastpathq_reads_slides_written_as_float_or_integer(official):
    module = official("breastpathq", allow_missing=True)
    store = prepared(module)
    assert len(store) == 1
    assert store.group_names == ["99788"]
    assert store.target("cellularity")[0] == pytest.approx(0.97)


def test_breastpathq_refuses_missing_labelled_images(official):
    module = official("breastpathq")
    assert_refused(module, DatasetNotFoundError, "train/99861_1.tif", "allow_missing")


def test_breastpathq_names_every_missing_image_when_it_is_verified(forged_copy):
    module = forged_copy("breastpathq")
    gone = sorted((module.root / "breastpathq/datasets/train").iterdir())[:2]
    for path in gone:
        path.unlink()
    errors = [f.where for f in verify(module, workers=1).findings if f.level is Level.ERROR]
    assert sorted(errors) == [path.relative_to(module.root).as_posix() for path in gone]


def test_breastpathq_splits_by_slide_as_published(forged, tmp_path):
    store = prepared(dataset("breastpathq", forged("breastpathq"), tmp_path))
    train, val = (set(store.group[store.split == part]) for part in (0, 1))
    assert train and val and not train & val
    assert (store.split != 2).all()


def test_breastpathq_refuses_images_without_a_row_and_values_out_of_range(forged_copy):
    module = forged_copy("breastpathq")
    folder = module.root / "breastpathq/datasets"
    shutil.copy(next((folder / "train").iterdir()), folder / "train/1_1.tif")
    assert_refused(module, LayoutError, "train/1_1.tif", "no row")
    (folder / "train/1_1.tif").unlink()
    table = folder / "train_labels.csv"
    first = table.read_text().splitlines()[1].split(",")
    table.write_text(table.read_text().replace(",".join(first), f"{first[0]},{first[1]},1.5"))
    assert_refused(module, LayoutError, "train_labels.csv, line 2", "1.5")


def dataset_at_native_size(module, side):
    options = {"patch_size": side}
    return dataset(module.folder, module.root, module.store_path.parent, **options)


def height_of(module, source):
    with PIL.Image.open(module.root / source) as image:
        return image.height
