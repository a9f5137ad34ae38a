"""Readers of datasets with one label an image, on real files and forged copies."""

import shutil
from collections import Counter

import numpy as np

from datamodules.core.errors import DatasetNotFoundError, ImageError, LayoutError
from datamodules.formats.images import read_image
from tests.support.readers import assert_refused, dataset, prepared

# ---- NCT-CRC ------------------------------------------------------------------------------


def test_nct_crc_validation_files_alone_are_training_data(official):
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


def test_an_image_missing_from_the_clusters_is_refused(forged_copy):
    module = forged_copy("lc25000")
    folder = module.root / "lung_colon_image_set/lung_image_sets/lung_scc"
    shutil.copy(next(folder.iterdir()), folder / "lungscc4999.jpeg")
    assert_refused(module, LayoutError, "lung_scc/lungscc4999.jpeg", "final_clusters.csv")
