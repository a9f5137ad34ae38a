"""Class folders and image masks, on real folders and forged copies."""

import numpy as np
import PIL.Image
import pytest

from datamodules.core.errors import ConfigError, DatasetNotFoundError, ImageError, LayoutError
from datamodules.formats.images import read_image, read_mask, write_image
from datamodules.prepare import prepare
from datamodules.store.tiling import resize_mask
from tests.support.image_files import oriented, paletted
from tests.support.readers import assert_refused, dataset, prepared

CLASS_SETS = {
    "glas_grade": (165, 16, {"group": r"^(patient\d+)", "mpp": 0.94}),
    "prostate_gleason": (80, 68, {"group": r"^([0-9a-f]{32})_"}),
    "osteosarcoma": (60, 4, {"group": r"^(Case-\d+|P\d+)"}),
    "mitosis_crops": (243, 16, {"group": r"^(\d+)_"}),
    "breakhis_224": (78, 13, {"group": r"^SOB_[BM]_[A-Z]+_\d+-([0-9A-Z]+)_"}),
}
MASK_SETS = {
    "bcss_tumour": (3, {"classes": ["other", "tumour"], "mpp": 0.25}),
    "glas_glands": (18, {"classes": ["background", "gland"]}),
    "tnbc_nuclei": (30, {"classes": ["background", "nucleus"]}),
}


@pytest.fixture
def folders(real_samples, tmp_path):
    def real(reader, name, **options):
        if not (real_samples / "folders" / name).is_dir():
            pytest.skip(f"no real sample {name}")
        return dataset(reader, real_samples / "folders" / name, tmp_path / "stores", **options)

    return real


@pytest.mark.parametrize("name", CLASS_SETS)
def test_real_class_folders_are_read_with_their_groups(folders, name):
    images, groups, options = CLASS_SETS[name]
    module = folders("class_folders", name, **options)
    store = prepared(module)
    assert len(store) == images
    assert len(store.group_names) == groups
    classes = store.tasks[0].classes
    for index in range(0, images, 13):
        assert store.source(index).split("/")[0] == classes[store.target("class")[index]]


@pytest.mark.parametrize("name", MASK_SETS)
def test_real_masks_are_read_and_stay_on_their_pixels(folders, name):
    images, options = MASK_SETS[name]
    module = folders("image_masks", name, target_mpp=0.0, **options)
    records = list(module.records(module.root))
    assert len(records) == images
    store = prepared(module)
    source = module.root / store.source(0)
    np.testing.assert_array_equal(store.images([0])[0], read_image(source)[:256, :256])
    mask = read_mask(source.parent.parent / "masks" / f"{source.stem}.png")
    np.testing.assert_array_equal(store.masks("mask", [0])[0], mask[:256, :256])


def test_real_regions_are_brought_to_the_wanted_resolution(folders):
    module = folders("image_masks", "bcss_tumour", **MASK_SETS["bcss_tumour"][1])
    store = prepared(module)
    assert store.mpp == 0.5
    assert len(store) == 97


def test_classes_come_from_the_folders_or_from_the_options(forged, tmp_path):
    root = forged("class_folders")
    (task,) = dataset("class_folders", root, tmp_path).tasks_in(root)
    assert (task.classes, task.positive) == (("benign", "malignant"), "malignant")
    options = {"classes": ["malignant", "benign"], "positive": "malignant"}
    (task,) = dataset("class_folders", root, tmp_path, **options).tasks_in(root)
    assert (task.classes, task.positive) == (("malignant", "benign"), "malignant")


def test_own_data_may_have_published_splits(forged_copy):
    module = forged_copy("class_folders", group=r"^(patient\d+)")
    for part, names in (("train", ("benign", "malignant")), ("val", ("benign", "malignant"))):
        for name in names:
            target = module.root / part / name
            target.mkdir(parents=True)
            for path in sorted((module.root / name).iterdir())[:2]:
                path.rename(target / path.name)
    for name in ("benign", "malignant"):
        for path in (module.root / name).iterdir():
            path.unlink()
        (module.root / name).rmdir()
    assert [r.split for r in module.records(module.root)] == ["train"] * 4 + ["val"] * 4
    (module.root / "other").mkdir()
    assert_refused(module, LayoutError, "other", "train")


def test_the_option_view_cuts_images_into_tiles(forged, tmp_path):
    root = forged("class_folders")
    whole = prepared(dataset("class_folders", root, tmp_path, patch_size=128))
    tiles = prepared(dataset("class_folders", root, tmp_path, patch_size=128, view="TILE"))
    assert len(tiles) == 4 * len(whole)
    np.testing.assert_array_equal(tiles.target("class"), np.repeat(whole.target("class"), 4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group": "patient"}, ["0 capture groups"]),
        ({"group": "(a)(b)"}, ["2 capture groups"]),
        ({"group": "("}, ["regular expression"]),
        ({"positive": "cancer"}, ["cancer", "malignant"]),
        (
            {"classes": ["benign", "malignant", "other"], "positive": "malignant"},
            ["positive", "two classes, not 3"],
        ),
    ],
)
def test_invalid_options_are_refused(forged_copy, options, words):
    assert_refused(forged_copy("class_folders", **options), ConfigError, *words)


def test_an_unknown_option_is_refused_by_name(forged_copy):
    with pytest.raises(ConfigError, match="grup"):
        forged_copy("class_folders", grup="(a)")


def test_a_file_name_without_group_is_refused(forged_copy):
    module = forged_copy("class_folders", group=r"^(patient\d+)")
    path = next((module.root / "benign").iterdir())
    path.rename(path.with_name("scan.png"))
    assert_refused(module, LayoutError, "benign/scan.png", "group")


def test_a_class_of_the_options_without_folder_is_refused(forged_copy):
    module = forged_copy("class_folders", classes=["benign", "malignant", "in-situ"])
    assert_refused(module, LayoutError, "in-situ")


def test_an_empty_class_folder_of_own_data_is_refused(forged_copy):
    module = forged_copy("class_folders")
    (module.root / "in-situ").mkdir()
    assert_refused(module, LayoutError, "in-situ", "no image")


def test_a_folder_without_images_and_masks_is_refused(forged_copy):
    module = forged_copy("image_masks")
    (module.root / "masks").rename(module.root / "labels")
    assert_refused(module, DatasetNotFoundError, "masks")


def test_masks_and_images_must_pair(forged_copy):
    module = forged_copy("image_masks")
    mask = sorted((module.root / "masks").iterdir())[0]
    image = module.root / "images" / mask.name
    mask.rename(mask.with_suffix(".jpg"))  # would blur class indices
    assert_refused(module, LayoutError, f"images/{mask.name}", f"masks/{mask.name}")
    mask.with_suffix(".jpg").rename(mask)
    image.rename(image.with_name("other.png"))
    assert_refused(module, DatasetNotFoundError, f"masks/{mask.name}", "image", "missing")
    mask.unlink()
    assert_refused(module, LayoutError, "images/other.png", "masks/other.png")
    image.with_name("other.png").unlink()
    left = sorted((module.root / "images").iterdir())[0]
    write_image(left.with_suffix(".jpg"), read_image(left))
    assert_refused(module, LayoutError, left.stem, "same name")


def test_invalid_masks_are_refused(forged_copy):
    module = forged_copy("image_masks")
    mask = sorted((module.root / "masks").iterdir())[0]
    good = read_mask(mask)
    write_image(mask, good[:, :100])
    assert_refused(module, LayoutError, f"images/{mask.name}", "100x256")
    write_image(mask, np.where(good == 1, 7, good).astype(np.uint8))
    assert_refused(module, LayoutError, f"images/{mask.name}", "class index 7")
    write_image(mask, np.stack([good, good, good + 1], axis=2))
    assert_refused(module, LayoutError, mask.name, "one 8-bit channel")
    mask.write_bytes(b"no image")
    assert_refused(module, ImageError, mask.name)


def test_black_and_white_masks_are_read_with_the_option_foreground(forged_copy):
    module = forged_copy("image_masks")
    plain = prepared(module).masks("mask", range(4)).copy()
    for path in (module.root / "masks").iterdir():
        write_image(path, read_mask(path) * 255)
    module = forged_copy_in_place(module, foreground=255)
    np.testing.assert_array_equal(prepared(module).masks("mask", range(4)), plain)


@pytest.mark.parametrize("kind", ["1 bit", "palette with white first", "RGB", "TIFF", "BMP"])
def test_masks_of_black_and_white_mean_the_same_in_every_file_format(forged_copy, kind):
    module = forged_copy("image_masks")
    plain = prepared(module).masks("mask", range(4)).copy()
    for path in sorted((module.root / "masks").iterdir()):
        mask = read_mask(path) * 255
        path.unlink()
        if kind == "1 bit":
            PIL.Image.fromarray(mask).convert("1").save(path)
        elif kind == "palette with white first":
            white = np.array([[255] * 3, [0] * 3])
            paletted(path, (mask == 0).astype(np.uint8), white)
        elif kind == "RGB":
            write_image(path, np.stack([mask] * 3, axis=2))
        else:
            write_image(path.with_suffix(".tif" if kind == "TIFF" else ".bmp"), mask)
    module = forged_copy_in_place(module, foreground=255)
    np.testing.assert_array_equal(prepared(module).masks("mask", range(4)), plain)


def test_a_foreground_that_never_occurs_is_refused_and_empty_masks_are_counted(forged_copy):
    module = forged_copy("image_masks", foreground=200)
    masks = sorted((module.root / "masks").iterdir())
    assert_refused(module, LayoutError, masks[0].name, "[1], never options.foreground 200")
    for path in masks:
        write_image(path, read_mask(path) * 0)
    write_image(masks[0], np.where(read_image(masks[0])[..., 0] == 0, 200, 7).astype(np.uint8))
    write_image(masks[1], np.tile(np.array([0, 200, 254], np.uint8), (256, 86))[:, :256])
    notes = prepare(module, workers=1).notes
    assert notes.counts == {
        ("warning", "image without an object of task 'mask'"): len(masks) - 2,
        ("warning", "values besides 0 and the foreground, read as background"): 1,
    }


def test_palettes_that_differ_from_mask_to_mask_are_refused(forged_copy):
    module = forged_copy("image_masks")
    masks = sorted((module.root / "masks").iterdir())
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]])
    plain = prepared(module).masks("mask", range(4)).copy()
    for path in masks:
        paletted(path, read_mask(path), colours)
    np.testing.assert_array_equal(prepared(module).masks("mask", range(4)), plain)
    paletted(masks[1], 1 - read_mask(masks[1]), colours[[1, 0, 2]])
    module.store_path.unlink()
    assert_refused(module, LayoutError, masks[1].name, "another palette", masks[0].name)


@pytest.mark.parametrize("part", ["images", "masks"])
def test_an_image_and_its_mask_are_turned_alike(forged_copy, part):
    module = forged_copy("image_masks")
    pairs = {p: sorted((module.root / p).iterdir())[0] for p in ("images", "masks")}
    wide = {
        p: read(path)[:200]
        for (p, path), read in zip(pairs.items(), (read_image, read_mask), strict=True)
    }
    for name, path in pairs.items():
        write_image(path, wide[name])
    oriented(wide[part], 8)(pairs[part])
    assert_refused(module, LayoutError, pairs["images"].name, "mask is")
    for name, path in pairs.items():
        oriented(wide[name], 8)(path)
    store = prepared(dataset("image_masks", module.root, module.store_path.parent, view="WHOLE"))
    mask = store.masks("mask", [0])[0]
    assert (mask == resize_mask(np.rot90(wide["masks"]), (328, 256))[36:292]).mean() > 0.99
    assert prepare(module, workers=1).notes.total("warning") == 2


def forged_copy_in_place(module, **options):
    return dataset("image_masks", module.root, module.store_path.parent, **options)
