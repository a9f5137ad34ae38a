"""Readers of patches with one label for the whole: Gleason TMA, BACH, SICAPv2, Kather 2016."""

import shutil
from collections import Counter

import numpy as np
import pytest

from datamodules.core.errors import ConfigError, DatasetNotFoundError, ImageError, LayoutError
from datamodules.formats.images import read_image, read_mask, write_image
from datamodules.formats.xlsx import read_xlsx, write_xlsx
from datamodules.public.bach import split_of
from tests.support.readers import assert_refused, dataset, prepared

# ---- Gleason TMA --------------------------------------------------------------------------


@pytest.fixture
def authors_patches(forged, tmp_path):
    """A reader on patches in the layout of the authors' script, cut from forged spots."""

    def module(**options):
        folder = tmp_path / "patches"
        for pathologist in (1, 2):
            spots = dataset("gleason_tma", forged("gleason_tma"), tmp_path, pathologist=pathologist)
            for record in spots.records(spots.root):
                place = "train_validation_patches_750"
                if record.split == "test":
                    place = f"test_patches_750/patho_{pathologist}"
                name = f"{record.group}_patch_{record.source.rpartition('#')[2]}"
                name += f"_class_{record.targets['gleason']}.jpg"
                write_image(folder / place / record.group / name, record.image())
        return dataset("gleason_tma", folder, tmp_path / "stores", **options)

    return module


def test_gleason_splits_by_array_and_groups_by_core(forged, tmp_path, authors_patches):
    spots = dataset("gleason_tma", forged("gleason_tma"), tmp_path)
    arrays = {"train": {"ZT111", "ZT199", "ZT204"}, "val": {"ZT76"}, "test": {"ZT80"}}
    for module in (spots, authors_patches()):
        records = list(module.records(module.root))
        for split, names in arrays.items():
            assert {r.group.split("_")[0] for r in records if r.split == split} == names
        found = Counter((r.split, r.group, r.targets["gleason"]) for r in records)
        assert found == Counter(
            (r.split, r.group, r.targets["gleason"]) for r in spots.records(spots.root)
        )
    assert all(record.source.split("/")[-2] == record.group for record in records)
    assert all(f"_class_{r.targets['gleason']}." in r.source for r in records)


def test_gleason_test_labels_come_from_the_chosen_pathologist(forged, tmp_path, authors_patches):
    for layout in ("spots", "patches"):
        labels = {}
        for pathologist in (1, 2):
            options = {"pathologist": pathologist}
            spots = dataset("gleason_tma", forged("gleason_tma"), tmp_path, **options)
            module = spots if layout == "spots" else authors_patches(**options)
            records = list(module.records(module.root))
            labels[pathologist] = [r.targets["gleason"] for r in records]
        assert len(labels[1]) == len(labels[2])
        assert labels[1] != labels[2]
    assert all(f"patho_{pathologist}" in r.source for r in records if r.split == "test")
    with pytest.raises(ConfigError, match="gleason_tma"):
        dataset("gleason_tma", forged("gleason_tma"), tmp_path, pathologist=3)


def test_gleason_patches_are_cut_as_by_the_authors(tmp_path):
    """The corners, numbers and labels that the published script gives for a small spot."""
    top = tmp_path / "raw"
    image = np.full((1600, 1600, 3), 120, np.uint8)
    image[375:1125, 375:1125] = 200  # patch 4 of nine is mostly background
    image[:8, :8] = (1, 2, 3)
    mask = np.full((1600, 1600), 4, np.uint8)
    mask[:, :500] = 2
    mask[:200, :200] = 3  # outside of every middle third
    mask[625:700, 1050:1100] = 0
    mask[625:700, 640:660] = 1  # in patch 4
    mask[1000:1250, 700:800] = 1
    mask[1000:1250, 800:900] = 3  # two grades in patch 5
    write_image(top / "ZT76_39_A" / "ZT76_39_A_1_1.png", image)
    (top / "ZT76_39_A" / "ZT76_39_A_1_1.png").rename(top / "ZT76_39_A" / "ZT76_39_A_1_1.jpg")
    write_image(top / "Gleason_masks_train" / "mask_ZT76_39_A_1_1.png", mask)
    write_image(top / "ZT76_39_A" / "ZT76_39_A_1_2.jpg", image)  # never outlined
    module = dataset("gleason_tma", top, tmp_path)
    records = list(module.records(top))
    # Numbers count rows within columns. Middle thirds begin at 250, 625 and 1000.
    found = {r.source.rpartition("#")[2]: r.targets["gleason"] for r in records}
    assert found == {"0": 2, "1": 2, "2": 2, "7": 0}
    assert records[0].image().shape == (750, 750, 3)
    assert (records[0].image()[:8, :8] == (1, 2, 3)).all()
    assert {r.split for r in records} == {"val"}
    write_image(top / "Gleason_masks_train" / "mask_ZT76_39_A_1_1.png", mask[:-1])
    assert_refused(module, LayoutError, "mask_ZT76_39_A_1_1.png", "the size of its spot")


def test_gleason_top_folder_may_lie_one_level_deeper(authors_patches):
    module = authors_patches()
    before = [record.group for record in module.records(module.root)]
    deeper = module.root / "tma"
    deeper.mkdir()
    for name in ("train_validation_patches_750", "test_patches_750"):
        (module.root / name).rename(deeper / name)
    assert [record.group for record in module.records(module.root)] == before


def test_gleason_refuses_strange_cores_names_classes_and_images(authors_patches):
    module = authors_patches()
    train = module.root / "train_validation_patches_750"
    core = sorted(train.iterdir())[0]
    path = sorted(core.iterdir())[0]
    moved = path.with_name(path.name.replace(path.stem[-7:], "class_7"))
    path.rename(moved)
    assert_refused(module, LayoutError, moved.name, "class 7")
    strange = moved.with_name("photo.jpg")
    moved.rename(strange)
    assert_refused(module, LayoutError, f"{core.name}/photo.jpg", "_class_")
    strange.rename(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert_refused(module, ImageError, path.name)
    shutil.rmtree(core)
    core.mkdir()
    assert_refused(module, LayoutError, core.name, "no image")
    core.rename(train / "ZT80_3_A_1_1")  # a test core among the training cores
    assert_refused(module, LayoutError, "ZT80_3_A_1_1", "arrays ZT111")


# ---- BACH ---------------------------------------------------------------------------------


def test_bach_split_has_the_published_sizes():
    assert Counter(split_of(place) for place in range(400)) == {"train": 268, "test": 132}


def test_bach_reads_invasive_against_the_rest_or_all_four_classes(forged, tmp_path):
    two = prepared(dataset("bach", forged("bach"), tmp_path))
    four = prepared(dataset("bach", forged("bach"), tmp_path, classes=4))
    assert two.tasks[0].positive == "Invasive"
    assert two.target("invasive").mean() == 0.25
    assert four.tasks[0].classes == ("Benign", "InSitu", "Invasive", "Normal")
    names = [four.tasks[0].classes[label] for label in four.target("histology")]
    assert names == [four.source(i).split("/")[-2] for i in range(len(four))]
    np.testing.assert_array_equal(two.target("invasive"), four.target("histology") == 2)


def test_bach_split_depends_on_the_number_in_the_name(forged_copy):
    module = forged_copy("bach")
    splits = {r.source.split("/")[-1]: r.split for r in module.records(module.root)}
    assert splits["b001.tif"] == "train"
    photos = module.root / "ICIAR2018_BACH_Challenge/Photos"
    (photos / "Benign/b001.tif").rename(photos / "Benign/b060.tif")  # place 59: trains
    (photos / "Normal/n001.tif").rename(photos / "Normal/n046.tif")  # place 345: tests
    splits = {r.source.split("/")[-1]: r.split for r in module.records(module.root)}
    assert (splits["b060.tif"], splits["n046.tif"]) == ("train", "test")


def test_bach_refuses_empty_missing_and_strange_folders_and_names(forged_copy):
    module = forged_copy("bach")
    photos = module.root / "ICIAR2018_BACH_Challenge/Photos"
    assert (photos / "Benign/Thumbs.db").is_file()  # passed over
    path = photos / "InSitu/is001.tif"
    path.rename(photos / "InSitu/is101.tif")
    assert_refused(module, LayoutError, "is101.tif", "100")
    (photos / "InSitu/is101.tif").rename(photos / "InSitu/b001.tif")
    assert_refused(module, LayoutError, "InSitu/b001.tif")
    shutil.rmtree(photos / "InSitu")
    assert_refused(module, LayoutError, "InSitu")
    (photos / "InSitu").mkdir()
    assert_refused(module, LayoutError, "InSitu", "no image")


# ---- SICAPv2 ------------------------------------------------------------------------------


def test_sicapv2_labels_match_the_tables(forged, tmp_path):
    module = dataset("sicapv2", forged("sicapv2"), tmp_path)
    store = prepared(module)
    tables = module.root / "partition"
    rows = [
        row
        for name in ("Validation/Val1/Train", "Validation/Val1/Test", "Test/Test")
        for _, row in read_xlsx(tables, tables / f"{name}.xlsx")[1:]
    ]
    expected = [[int(cell) for cell in row[1:]] for row in rows]
    assert store.target("gleason").tolist() == expected
    assert [store.source(i) for i in range(len(store))] == [f"images/{row[0]}" for row in rows]
    assert any(sum(row) == 2 for row in expected)  # cribriform is pattern 4 as well


def test_sicapv2_holds_out_the_chosen_fold_and_always_the_same_test(forged, tmp_path):
    seen, tests = [], []
    for fold in (1, 2, 3, 4):
        module = dataset("sicapv2", forged("sicapv2"), tmp_path, fold=fold)
        records = list(module.records(module.root))
        parts = {s: {r.group for r in records if r.split == s} for s in ("train", "val", "test")}
        assert not parts["train"] & parts["val"]
        assert not parts["test"] & (parts["train"] | parts["val"])
        seen += sorted(parts["val"])
        tests.append(parts["test"])
    assert len(seen) == len(set(seen)) == 5
    assert tests == [tests[0]] * 4


def test_sicapv2_regions_are_the_patterns_of_the_labels(forged, tmp_path):
    module = dataset("sicapv2", forged("sicapv2"), tmp_path, patch_size=512)
    store = prepared(module)
    labels, masks = store.target("gleason"), store.masks("regions", range(len(store)))
    for row in range(len(store)):
        values = np.unique(masks[row])
        named = [pattern for pattern in (1, 2, 3) if labels[row, pattern]]  # G3, G4, G5
        assert sorted(set(values.tolist()) - {0}) == named
    path = module.root / store.source(0).replace("images", "masks").replace(".jpg", ".png")
    codes = np.array([0, 3, 4, 5])  # of regions 0 to 3
    np.testing.assert_array_equal(codes[masks[0]], read_mask(path))


def test_sicapv2_refuses_unknown_codes_and_reads_labels_alone_when_asked(forged_copy):
    module = forged_copy("sicapv2")
    path = next((module.root / "masks").iterdir())
    mask = read_mask(path).copy()
    mask[0, 0] = 150
    write_image(path, mask)
    assert_refused(module, LayoutError, path.name, "code 150", "0, 3, 4, 5")
    alone = forged_copy("sicapv2", masks=False)
    shutil.rmtree(module.root / "masks")
    assert_refused(module, DatasetNotFoundError, "masks/", "options.masks=false")
    assert [task.name for task in prepared(alone).tasks] == ["gleason"]


def test_sicapv2_refuses_tables_that_do_not_fit_and_missing_images(forged_copy):
    module = forged_copy("sicapv2")
    table = module.root / "partition/Test/Test.xlsx"
    lines = [row for _, row in read_xlsx(module.root, table)]
    write_xlsx(table, [[*lines[0][:-1], "G6"], *lines[1:]])
    assert_refused(module, LayoutError, "Test.xlsx", "G4C")
    write_xlsx(table, [lines[0], [lines[1][0], "yes", 0, 0, 0, 0]])
    assert_refused(module, LayoutError, "Test.xlsx", lines[1][0].removesuffix(".jpg"))
    write_xlsx(table, [lines[0], [lines[1][0], 2, 0, 0, 0, 0]])
    assert_refused(module, LayoutError, lines[1][0], "column 'NC'", "0 to 1")
    write_xlsx(table, [lines[0], [lines[1][0], "0.7", 0, 1, 0, 0]])
    assert_refused(module, LayoutError, lines[1][0], "column 'NC'", "0.7 is not a whole number")
    write_xlsx(table, [lines[0], lines[1], lines[1]])
    assert_refused(module, LayoutError, lines[1][0], "twice")
    write_xlsx(table, [lines[0], [f"../masks/{lines[1][0]}", 1, 0, 0, 0, 0]])
    assert_refused(module, LayoutError, "line 2", "leaves the dataset's folder")
    table.write_bytes(b"no zip")
    assert_refused(module, LayoutError, "Test.xlsx", "not a readable")
    write_xlsx(table, lines)
    (module.root / "images" / lines[1][0]).unlink()
    assert_refused(module, DatasetNotFoundError, lines[1][0])


# ---- Kather 2016 --------------------------------------------------------------------------


def test_kather2016_groups_by_the_slide_in_the_name(forged, tmp_path):
    module = dataset("kather2016", forged("kather2016"), tmp_path)
    store = prepared(module)
    assert store.group_names == [f"CRC-Prim-HE-{k:02d}" for k in (1, 2, 3, 4)]
    for label in range(8):  # every class occurs on every slide
        assert len(np.unique(store.group[store.target("tissue") == label])) == 4
    np.testing.assert_array_equal(store.images([0])[0], read_image(module.root / store.source(0)))


def test_kather2016_name_without_slide_is_its_own_group(forged_copy):
    module = forged_copy("kather2016")
    path = next(module.root.rglob("01_TUMOR/*.tif"))
    path.rename(path.with_name("a.tif"))
    groups = {r.source.split("/")[-1]: r.group for r in module.records(module.root)}
    assert groups["a.tif"].endswith("01_TUMOR/a.tif")


def test_kather2016_refuses_a_missing_class(forged_copy):
    module = forged_copy("kather2016")
    shutil.rmtree(next(module.root.rglob("08_EMPTY")))
    assert_refused(module, LayoutError, "08_EMPTY")
