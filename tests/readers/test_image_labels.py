"""Readers of datasets with one label an image, over real files and over forged ones."""

import shutil
from collections import Counter

import numpy as np
import PIL.Image
import pytest
from reading import assert_refused, dataset, prepared

from datamodules.errors import ConfigError, DatasetNotFoundError, ImageError, LayoutError
from datamodules.images import read_image, write_image

# ---- NCT-CRC ------------------------------------------------------------------------------


def test_nct_crc_of_validation_files_alone_can_be_trained_on(official):
    module = official("nct_crc")
    records = list(module.records(module.root))
    assert len(records) == 70
    assert Counter(record.split for record in records) == {"train": 70}
    assert len({record.group for record in records}) == 70
    assert Counter(record.targets["tissue"] for record in records) == dict.fromkeys(
        (0, 3, 4, 5, 6, 7, 8), 10
    )


def test_nct_crc_patches_are_stored_pixel_by_pixel(official):
    module = official("nct_crc")
    store = prepared(module)
    assert (len(store), store.side, store.mpp) == (70, 224, 0.5)
    for index in (0, 33, 69):
        expected = read_image(module.root / store.source(index))
        np.testing.assert_array_equal(store.images([index])[0], expected)
        folder = store.source(index).split("/")[1]
        assert store.tasks[0].classes[store.target("tissue")[index]] == folder


def test_nct_crc_with_both_parts_validates_on_the_other_patients(forged, tmp_path):
    module = dataset("nct_crc", forged("nct_crc"), tmp_path)
    splits = Counter((r.source.split("/")[0], r.split) for r in module.records(module.root))
    assert set(splits) == {("NCT-CRC-HE-100K", "train"), ("CRC-VAL-HE-7K", "val")}


def test_nct_crc_reads_the_images_before_normalisation_when_asked(forged_copy):
    module = forged_copy("nct_crc", nonorm=True)
    assert_refused(module, DatasetNotFoundError, "NCT-CRC-HE-100K-NONORM")
    module.root.joinpath("NCT-CRC-HE-100K").rename(module.root / "NCT-CRC-HE-100K-NONORM")
    assert next(module.records(module.root)).source.startswith("NCT-CRC-HE-100K-NONORM/")


def test_nct_crc_lacking_a_training_class_is_refused(forged_copy):
    module = forged_copy("nct_crc")
    shutil.rmtree(module.root / "NCT-CRC-HE-100K/MUS")
    assert_refused(module, LayoutError, "NCT-CRC-HE-100K/MUS")


def test_an_empty_class_folder_is_refused(forged_copy):
    module = forged_copy("nct_crc")
    for path in (module.root / "NCT-CRC-HE-100K/DEB").iterdir():
        path.unlink()
    assert_refused(module, LayoutError, "NCT-CRC-HE-100K/DEB", "no image")


def test_an_unknown_class_folder_is_refused(forged_copy):
    module = forged_copy("nct_crc")
    (module.root / "CRC-VAL-HE-7K/XYZ").mkdir()
    assert_refused(module, LayoutError, "CRC-VAL-HE-7K/XYZ", "TUM")


def test_a_patch_in_the_folder_of_another_class_is_refused(forged_copy):
    module = forged_copy("nct_crc")
    path = next((module.root / "NCT-CRC-HE-100K/ADI").iterdir())
    path.rename(module.root / "NCT-CRC-HE-100K/TUM" / path.name)
    assert_refused(module, LayoutError, f"NCT-CRC-HE-100K/TUM/{path.name}", "ADI")


def test_an_image_that_does_not_decode_is_refused(forged_copy):
    module = forged_copy("nct_crc")
    path = next((module.root / "NCT-CRC-HE-100K/ADI").iterdir())
    path.write_bytes(path.read_bytes()[:5000])
    assert_refused(module, ImageError, path.name)


# ---- LC25000 ------------------------------------------------------------------------------


def test_lc25000_without_clusters_makes_every_image_its_own_group(official):
    module = official("lc25000")
    store = prepared(module)
    assert len(store) == 100
    assert np.bincount(store.target("histology")).tolist() == [20] * 5
    assert len(store.group_names) == 100


def test_lc25000_is_grouped_by_the_clusters_of_the_cleaned_list(forged, tmp_path):
    store = prepared(dataset("lc25000", forged("lc25000"), tmp_path))
    counts = np.bincount(store.group)
    assert counts.tolist() == [4] * len(store.group_names)
    # Copies differ by rotation and flip alone, so the nearest image by its colours is a copy.
    images = store.images(range(len(store)))
    levels = np.array(
        [[np.histogram(c, 32, (0, 256))[0] for c in i.transpose(2, 0, 1)] for i in images]
    )
    for row, level in enumerate(levels):
        distance = np.abs(levels - level).sum(axis=(1, 2))
        distance[row] = distance.max()
        assert store.group[distance.argmin()] == store.group[row]


def test_an_image_that_the_clusters_do_not_list_is_refused(forged_copy):
    module = forged_copy("lc25000")
    folder = module.root / "lung_colon_image_set/lung_image_sets/lung_scc"
    shutil.copy(next(folder.iterdir()), folder / "lungscc4999.jpeg")
    assert_refused(module, LayoutError, "lung_scc/lungscc4999.jpeg", "final_clusters.csv")


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


def test_idc_counts_a_file_name_once_and_takes_the_class_from_it(forged_copy):
    module = forged_copy("idc")
    before = [(r.group, r.targets["invasive"]) for r in module.records(module.root)]
    assert (module.root / "IDC_regular_ps50_idx5").is_dir()
    moved = next((module.root / "8817/0").iterdir())
    moved.rename(module.root / "8817/1" / moved.name)
    after = [(r.group, r.targets["invasive"]) for r in module.records(module.root)]
    assert after == before
    assert len({path.name for path in module.root.rglob("*.png")}) == len(after)


def test_idc_is_read_when_only_the_nested_folder_is_there(forged_copy):
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
    module = forged_copy("breakhis", magnification="50X")
    assert_refused(module, ConfigError, "50X", "400X")
    module = forged_copy("breakhis")
    path = next(module.root.rglob("SOB_B_*.png"))
    path.rename(path.with_name(path.name.replace("SOB_B", "SOB_M")))
    assert_refused(module, LayoutError, path.name.replace("SOB_B", "SOB_M"), "disagree")


# ---- BreastPathQ --------------------------------------------------------------------------


def test_breastpathq_reads_both_ways_of_writing_a_slide(official):
    module = official("breastpathq", allow_missing=True)
    store = prepared(module)
    assert len(store) == 1
    assert store.group_names == ["99788"]
    assert store.target("cellularity")[0] == pytest.approx(0.97)


def test_breastpathq_refuses_labelled_images_that_are_not_there(official):
    module = official("breastpathq")
    assert_refused(module, DatasetNotFoundError, "train/99861_1.tif", "allow_missing")


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
    assert_refused(module, LayoutError, "cellularity", "1.5")


def dataset_at_native_size(module, side):
    options = {"patch_size": side}
    return dataset(module.folder, module.root, module.store_path.parent, **options)


def height_of(module, source):
    with PIL.Image.open(module.root / source) as image:
        return image.height
