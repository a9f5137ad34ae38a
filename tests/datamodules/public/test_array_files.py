"""Readers of datasets that come as large arrays: PCam, PanNuke, CoNIC."""

import csv
import gzip
import pickle
import shutil

import h5py
import numpy as np
import pytest

from datamodules.core.errors import ConfigError, DatasetNotFoundError, ImageError, LayoutError
from datamodules.core.notes import collecting
from datamodules.formats.arrays import npy_image
from datamodules.public.pannuke import NUCLEI, TISSUES
from tests.support.readers import assert_refused, dataset, prepared

PCAM = "camelyonpatch_level_2_split_{}"


def rewrite_hdf5(path, key, change):
    with h5py.File(path) as file:
        data = file[key][:]
    path.unlink()
    with h5py.File(path, "w") as file:
        file[key] = change(data)


def rewrite_npy(path, change):
    data = np.load(path)
    np.save(path, change(data))


# ---- PCam ---------------------------------------------------------------------------------


def test_pcam_patches_and_labels_match_the_arrays(forged, tmp_path):
    module = dataset("pcam", forged("pcam"), tmp_path)
    store = prepared(module)
    images, labels = [], []
    for part in ("train", "valid", "test"):
        with h5py.File(module.root / PCAM.format(f"{part}_x.h5")) as file:
            images.append(file["x"][:])
        with h5py.File(module.root / PCAM.format(f"{part}_y.h5")) as file:
            labels.append(file["y"][:, 0, 0, 0])
    np.testing.assert_array_equal(store.images(range(len(store))), np.concatenate(images))
    np.testing.assert_array_equal(store.target("tumor"), np.concatenate(labels))
    assert np.bincount(store.split).tolist() == [len(part) for part in labels]


def test_pcam_groups_by_slide_and_no_slide_lies_in_two_parts(forged, tmp_path):
    module = dataset("pcam", forged("pcam"), tmp_path)
    records = list(module.records(module.root))
    parts = {s: {r.group for r in records if r.split == s} for s in ("train", "val", "test")}
    assert all(len(groups) >= 2 for groups in parts.values())
    assert sum(len(groups) for groups in parts.values()) == len(set().union(*parts.values()))


def test_pcam_without_meta_tables_makes_every_patch_its_own_group(forged_copy):
    module = forged_copy("pcam")
    for table in module.root.glob("*_meta.csv"):
        table.unlink()
    with collecting() as notes:
        records = list(module.records(module.root))
    assert notes.line() == "3 warnings (no table of slides: each patch is its own group: 3)"
    assert all(record.group == record.source for record in records)
    assert len({record.source for record in records}) == len(records)


def test_compressed_pcam_files_are_refused_with_the_command_to_unpack_them(forged_copy):
    module = forged_copy("pcam")
    path = module.root / PCAM.format("valid_x.h5")
    with gzip.open(f"{path}.gz", "wb") as file:
        file.write(path.read_bytes())
    path.unlink()
    assert_refused(module, LayoutError, path.name + ".gz", "gunzip")


def test_pcam_refuses_missing_parts_and_arrays_that_do_not_fit(forged_copy):
    module = forged_copy("pcam")
    meta = module.root / PCAM.format("train_meta.csv")
    text = meta.read_text()
    meta.write_text("\n".join(text.splitlines()[:-1]))
    assert_refused(module, LayoutError, meta.name, "rows")
    meta.write_text(text.replace("wsi", "slide"))
    assert_refused(module, LayoutError, meta.name, "wsi")
    meta.write_text(text)
    labels, images = (module.root / PCAM.format(f"train_{what}.h5") for what in ("y", "x"))
    rewrite_hdf5(labels, "y", lambda data: data * 2)
    meta.unlink()
    assert_refused(module, LayoutError, "train_x.h5#1", "class 2")
    meta.write_text("\n".join([text.splitlines()[0], *reversed(text.splitlines()[1:])]))
    rewrite_hdf5(labels, "y", lambda data: data // 2)
    assert_refused(module, LayoutError, meta.name, "center_tumor_patch", "rows differ")
    meta.write_text(text)
    rewrite_hdf5(labels, "y", lambda data: data[:-1])
    assert_refused(module, LayoutError, labels.name, "rows")
    rewrite_hdf5(images, "x", lambda data: data[..., :2])
    assert_refused(module, LayoutError, images.name, "shape")
    images.write_bytes(images.read_bytes()[:200])
    assert_refused(module, LayoutError, images.name, "HDF5")
    images.unlink()
    assert_refused(module, DatasetNotFoundError, images.name)


# ---- PanNuke ------------------------------------------------------------------------------


def test_pannuke_masks_types_and_boxes_match_the_channels(forged, tmp_path):
    module = dataset("pannuke", forged("pannuke"), tmp_path)
    store = prepared(module)
    count = len(store) // 3
    row = 1
    top = module.root / "Fold 1"
    masks = np.load(top / "masks/fold1/masks.npy")
    np.testing.assert_array_equal(
        store.images(range(count)), np.load(top / "images/fold1/images.npy").astype(np.uint8)
    )
    target = store.masks("nuclei", range(count))
    np.testing.assert_array_equal(target == 0, masks[..., 5] == 1)  # background is a mask
    for channel in range(len(NUCLEI)):
        np.testing.assert_array_equal(target == channel + 1, masks[..., channel] > 0)
    boxes = store.boxes("nuclei_detection", row)
    expected = [
        [x.min(), y.min(), x.max() + 1, y.max() + 1, channel]
        for channel in range(len(NUCLEI))
        for number in np.unique(masks[row, ..., channel])[1:]
        for y, x in [np.nonzero(masks[row, ..., channel] == number)]
    ]
    assert len(expected) > 5
    actual = np.column_stack([boxes.xyxy, boxes.labels])
    assert sorted(actual.tolist()) == sorted(np.array(expected, float).tolist())
    types = np.load(top / "images/fold1/types.npy")
    assert [TISSUES[i] for i in store.target("tissue")[:count]] == types.tolist()


def test_pannuke_image_without_nuclei_has_no_box_and_only_background(forged, tmp_path):
    module = dataset("pannuke", forged("pannuke"), tmp_path)
    store = prepared(module)
    assert len(store.boxes("nuclei_detection", 0)) == 0
    assert store.masks("nuclei", [0]).max() == 0


def test_pannuke_nuclei_are_darker_than_their_surroundings(forged, tmp_path):
    module = dataset("pannuke", forged("pannuke"), tmp_path)
    for record in list(module.records(module.root))[1:4]:
        red, inside = record.image()[..., 0].astype(float), record.targets["nuclei"]() > 0
        assert red[inside].mean() < red[~inside].mean() - 20, record.source


@pytest.mark.parametrize(("rotation", "folds"), [(1, "123"), (2, "213"), (3, "321")])
def test_pannuke_rotates_its_folds_as_published(forged, tmp_path, rotation, folds):
    module = dataset("pannuke", forged("pannuke"), tmp_path, rotation=rotation)
    order = dict.fromkeys((r.split, r.source[5]) for r in module.records(module.root))
    assert list(order) == list(zip(("train", "val", "test"), folds, strict=True))


def test_pannuke_refuses_an_unknown_rotation(forged, tmp_path):
    with pytest.raises(ConfigError, match=r"rotation|options"):
        dataset("pannuke", forged("pannuke"), tmp_path, rotation=4)


def test_pannuke_is_read_row_by_row_and_its_records_carry_no_pixels(forged, tmp_path):
    module = dataset("pannuke", forged("pannuke"), tmp_path)
    record = next(module.records(module.root))
    assert len(pickle.dumps(record)) < 3000
    assert pickle.loads(pickle.dumps(record)).image().shape == (256, 256, 3)


def test_one_row_of_an_array_larger_than_memory_is_read(tmp_path):
    path = tmp_path / "images.npy"
    shape = (1 << 16, 256, 256, 3)  # 100 GB of holes, which take no room on the disk
    array = np.lib.format.open_memmap(path, "w+", np.float64, shape)
    array[40_000] = 7.0
    del array
    assert (npy_image(path, 40_000) == 7).all()
    assert (npy_image(path, 40_001) == 0).all()


def test_pannuke_refuses_unknown_tissues_other_lengths_and_cut_files(forged_copy):
    module = forged_copy("pannuke")
    types = module.root / "Fold 2/images/fold2/types.npy"
    names = np.load(types)
    np.save(types, np.where(np.arange(len(names)) == 1, "Nose", names))
    assert_refused(module, LayoutError, "types.npy#1", "Nose", "Adrenal_gland")
    np.save(types, np.array([name.replace("_", " ").upper() for name in names]))
    assert len(list(module.records(module.root))) == 3 * len(names)
    np.save(types, names[:-1])
    assert_refused(module, LayoutError, "types.npy")
    np.save(types, names)
    masks = module.root / "Fold 2/masks/fold2/masks.npy"
    rewrite_npy(masks, lambda data: data[:-1])
    assert_refused(module, LayoutError, "Fold 2/masks/fold2/masks.npy")
    masks.write_bytes(masks.read_bytes()[:-1000])
    assert_refused(module, LayoutError, "masks.npy", "fetch")
    masks.unlink()
    assert_refused(module, DatasetNotFoundError, "masks.npy")
    shutil.rmtree(module.root / "Fold 3")
    assert_refused(module, DatasetNotFoundError, "fold3")


def test_pannuke_refuses_pixels_that_are_not_grey_levels(forged_copy):
    module = forged_copy("pannuke")
    rewrite_npy(module.root / "Fold 1/images/fold1/images.npy", lambda data: data / 255)
    assert_refused(module, ImageError, "images.npy#", "whole numbers")


# ---- CoNIC --------------------------------------------------------------------------------


def test_conic_cells_match_the_table_of_counts(forged, tmp_path):
    module = dataset("conic", forged("conic"), tmp_path)
    store = prepared(module)
    with (module.root / "counts.csv").open() as file:
        expected = [[int(cell) for cell in line] for line in list(csv.reader(file))[1:]]
    counts = [
        np.bincount(store.boxes("nuclei_detection", i).labels, minlength=6).tolist()
        for i in range(len(store))
    ]
    assert counts == expected
    labels = np.load(module.root / "labels.npy")
    np.testing.assert_array_equal(store.masks("nuclei", range(len(store))), labels[..., 1])


def test_conic_image_is_a_copy_that_does_not_keep_the_mapped_file_open(forged):
    assert npy_image(forged("conic") / "images.npy", 0).base is None


def test_conic_groups_by_source_image(forged, tmp_path):
    module = dataset("conic", forged("conic"), tmp_path)
    records = list(module.records(module.root))
    assert [r.group for r in records] == [
        f"{c}_{i + 1}" for i, c in enumerate(("consep", "dpath", "glas")) for _ in range(4)
    ]


def test_conic_refuses_classes_and_names_that_are_not_published(forged_copy):
    module = forged_copy("conic")
    names = module.root / "patch_info.csv"
    text = names.read_text()
    names.write_text(text.replace("consep_1-0001", "consep_1"))
    assert_refused(module, LayoutError, "patch_info.csv", "line 3")
    names.write_text(text + "glas_9-0000\n")
    assert_refused(module, LayoutError, "patch_info.csv", "13 rows")
    names.write_text(text)
    # 300 would become class 44 when squeezed into eight bits.
    rewrite_npy(module.root / "labels.npy", lambda data: np.where(data == 3, 300, data))
    assert_refused(module, LayoutError, "labels.npy#", "300")
