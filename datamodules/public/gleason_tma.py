"""Gleason grades of prostate cancer on tissue microarrays (Arvaniti)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.core import notes
from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.options import ReaderOptions
from datamodules.core.records import SPLITS, Archive, Image, Mask, Record, Task, TaskKind
from datamodules.formats.annotations import Codes
from datamodules.formats.images import read_image, write_image
from datamodules.formats.layout import (
    folder_with,
    image_record,
    layout_error,
    named,
    nonempty_images,
    relative,
    subfolders,
)
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View, resize_image
from datamodules.synthetic.scene import slides

CLASSES = ("benign", "gleason_3", "gleason_4", "gleason_5")
_MASKS, _MASKS_2 = "Gleason_masks_train", "Gleason_masks_test_pathologist{}"
_TRAIN = "train_validation_patches_750"
_TEST = "test_patches_750"
_NAME = re.compile(r"(?P<core>.+)_patch_\d+_class_(?P<label>\d+)\.jpg")
_SPLIT_OF_ARRAY = dict.fromkeys(("ZT111", "ZT199", "ZT204"), "train")
_SPLIT_OF_ARRAY |= {"ZT76": "val", "ZT80": "test"}
_GRADES = ((0.0, 0.1), (0.3, 0.45), (0.55, 0.7), (0.85, 1.0))  # malignancy of synthetic tissue
_BLOCKS = {
    "ZT76": "ZT76_39_A",
    "ZT80": "ZT80_38_A",
    "ZT111": "ZT111_4_A",
    "ZT199": "ZT199_1_A",
    "ZT204": "ZT204_6_A",
}  # of synthetic spots
SIDE = 750
"""Pixels on a side of a patch; half of them overlap with the next one."""
_NOT_OUTLINED = 4
_CODES = Codes({code: code for code in range(_NOT_OUTLINED + 1)})
_WHITE = 180  # mean grey level above which a patch is mostly background

_URL = "https://dataverse.harvard.edu/api/access/datafile"
# Number of the file in its repository, and its SHA-256 as torch_em checks it.
_ARCHIVES = {
    "ZT76_39_A": (3201623, "054be24c8522bdacef2916a48e2463da238e39efbb96c4aae6e2f802168cc14f"),
    "ZT76_39_B": (3201625, "9d18c74ea72e6936a7ec6481373191b0c3da4f1a915280439b25efa7bcb645dc"),
    "ZT80_38_A": (3201626, "3ae19e2a3b00c4158171487da7cab10f05cbaddbb256a41ad6be73f4be091972"),
    "ZT80_38_B": (3201627, "406211b0822d165555346ae459db6ddb1daa32c9257f1578aeb7c2da03f3c910"),
    "ZT80_38_C": (3201628, "16bda74826ac8c907c85460b72f713f4f63d765167c18b2729743eed7e806048"),
    "ZT111_4_A": (3201629, "4e87448fe2db959a757c792069df5d49aaf08f305484a829832cb2d44e60fba0"),
    "ZT111_4_B": (3201630, "6e898136490c5fc4d46bb66541519a4bdfe77bcb7fcc7d2f39440195e8fe01ce"),
    "ZT111_4_C": (3201631, "85eeeeefd89f55d4aa12ce498f573c55f2ed83bf957b73a736a446cdb7540b45"),
    "ZT199_1_A": (3201632, "2e1f4cc38097d36be6d33c76688ec85df87c7f53812b205e34c1d5c47a720b45"),
    "ZT199_1_B": (3201633, "fa2d79e4891c5043f4dbb3db92e8d75de8d2f7c9afdf51d48c80dfb4f1d0b507"),
    "ZT204_6_A": (3201634, "ad02fe27bbdae2d2af0bf4e9725d8dabe1c15bdb49125e9e0131705401cdb610"),
    "ZT204_6_B": (3201635, "b89d3b8422cb1c2a9f3034d4f146ba0d3ce82260ab512c5ea5fc983506205c14"),
    _MASKS: (3201636, "f4a3ce4a599b210d60cddc6ad3cd8d28d58546fbdb82ee59ba52fc66e90698a6"),
    _MASKS_2.format(1): (
        *(3201654, "265c31f163072c7cdab9bcd850748b9196e79ac68497449dad542a3095f388ff"),
    ),
    _MASKS_2.format(2): (
        *(3201655, "2c996b8479aad8ff442ec0e23c80fec4aa9cc39961751252145058266e1267a2"),
    ),
}


@dataclass
class GleasonOptions(ReaderOptions):
    """Options of the Gleason TMA reader.

    Attributes:
        pathologist: whose labels the test array carries, 1 or 2; the two disagree.
    """

    pathologist: Literal[1, 2] = 1


class GleasonTMA(DatasetReader):
    """Gleason TMA (Arvaniti et al.): spots of prostate cancer on tissue microarrays, in patches.

    Layout:

        <block>/<core>.jpg                          spots of 3100x3100 px; block: ZT76_39_A ...
        Gleason_masks_train/mask_<core>.png         palette; 0 benign, 1 to 3 Gleason 3 to 5,
                                                    4 not outlined
        Gleason_masks_test_pathologist<k>/mask<k>_<core>.png    the test array, read by two

    or the patches that the authors' script cuts from them, with the class in the file name:

        train_validation_patches_750/<core>/<core>_patch_<NN>_class_<c>.jpg
        test_patches_750/{patho_1,patho_2}/<core>/<core>_patch_<NN>_class_<c>.jpg

    Patches are cut as by the authors: 750 px, every 375 px, the last one before the border left
    out; the label is the only grade that the middle third holds. Patches with none or several
    are left out, as are those whose mean grey level is above 180; of the test array only those
    that both pathologists graded are kept.

    Split: by array, the first token of the core (ZT76_39_A_1_1): train ZT111, ZT199, ZT204; val
    ZT76; test ZT80 (15,303 / 2,482 / 4,967 patches).
    Quirk: the authors' script compresses its patches once more, so pixels differ a little.
    """

    title = "Gleason TMA (Arvaniti)"
    organs = ("prostate",)
    licence = "CC0 1.0"
    commercial = True
    citation = (
        "Arvaniti et al., Automated Gleason grading of prostate cancer tissue microarrays via "
        "deep learning, Scientific Reports 8, 12054 (2018), doi:10.1038/s41598-018-30535-1"
    )
    homepage = "https://doi.org/10.7910/DVN/OCYCMP"
    sources = ("Arvaniti TMA",)
    archives = tuple(
        Archive(f"{_URL}/{number}", f"sha256:{sha256}", name=f"{name}.tar.gz")
        for name, (number, sha256) in _ARCHIVES.items()
    )
    obtain = f"fetch all 15 archives of {homepage}"
    images = 22_752
    extent = (750, 750)
    disk_gb = 4
    download_gb = 4
    mpp = 0.23
    view = View.WHOLE
    grouping = "core"
    published_splits = SPLITS
    tasks = (Task("gleason", TaskKind.CLASSIFICATION, CLASSES),)
    layout = ("**/ZT*_*/*.jpg",)  # spots of a block, or patches of a core
    options_type = GleasonOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Spots of 1126x1126 px of all five arrays, four patches each; some hold two grades."""
        side = SIDE * 3 // 2 + 1
        for core, _, slide in slides(rng, images // 4, ["prostate"], 2 * cls.mpp, 1, 10):
            array, label = list(_SPLIT_OF_ARRAY)[core % 5], (core + core // 5) % len(_GRADES)
            drawn = slide.field(side // 2, malignancy=_GRADES[label], epithelium=(0.4, 0.9))
            name = f"{_BLOCKS[array]}_{core + 1}_1"
            write_image(
                root / _BLOCKS[array] / f"{name}.jpg", resize_image(drawn.image, (side,) * 2)
            )
            mask = np.full((side, side), label, np.uint8)
            mask[:, side // 2 :] = min(3, label + (core % 3 == 2))
            mask[-100:, -100:] = _NOT_OUTLINED
            if _SPLIT_OF_ARRAY[array] != "test":
                write_image(root / _MASKS / f"mask_{name}.png", mask)
                continue
            for k in (1, 2):  # the second one grades the upper part higher
                write_image(root / _MASKS_2.format(k) / f"mask{k}_{name}.png", mask)
                mask[: side // 2] = np.minimum(3, mask[: side // 2] + 1)

    def records(self, root: Path) -> Iterator[Record]:
        """One record per patch, core by core."""
        if not list(root.glob(f"**/{_TRAIN}")):
            yield from self._cut(root, folder_with(root, _MASKS))
            return
        top = folder_with(root, _TRAIN)
        yield from _patches(root, top / _TRAIN, ("train", "val"))
        test = top / _TEST / f"patho_{self.options.pathologist}"
        if not test.is_dir():
            raise DatasetNotFoundError(f"{test}: no such folder; options.pathologist asks for it")
        yield from _patches(root, test, ("test",))

    def _cut(self, root: Path, top: Path) -> Iterator[Record]:
        """Patches of the spots that have masks, numbered as by the authors."""
        first = self.options.pathologist
        for block in subfolders(top):
            split = _SPLIT_OF_ARRAY.get(block.name.split("_")[0])
            if split is None:
                continue
            for spot in nonempty_images(root, block):
                masks = [top / _MASKS / f"mask_{spot.stem}.png"]
                if split == "test":
                    order = (first, 3 - first)
                    masks = [top / _MASKS_2.format(k) / f"mask{k}_{spot.stem}.png" for k in order]
                if not all(mask.is_file() for mask in masks):
                    notes.skipped(relative(root, spot), "spot without a mask of each pathologist")
                    continue
                for number, corner, label in _graded(root, spot, masks):
                    source = f"{relative(root, spot)}#{number}"
                    image, targets = partial(_patch, spot, corner), {"gleason": label}
                    yield Record(source, image, targets, split, spot.stem)


def _graded(
    root: Path, spot: Path, masks: list[Path]
) -> Iterator[tuple[int, tuple[int, int], int]]:
    """Number, corner (row, column) and class of each patch that every mask grades.

    The class is that of the first mask.
    """
    pixels, graded = _spot(spot), [_CODES(mask) for mask in masks]
    for path, mask in zip(masks, graded, strict=True):
        if mask.shape != pixels.shape[:2]:
            raise layout_error(root, path, f"has not the size of its spot {spot.name}")
    rows, columns = (range(0, side - SIDE, SIDE // 2) for side in pixels.shape[:2])
    for number, (column, row) in enumerate((c, r) for c in columns for r in rows):
        labels = [_grade(mask, row, column) for mask in graded]
        if None not in labels and pixels[row : row + SIDE, column : column + SIDE].mean() <= _WHITE:
            yield number, (row, column), int(labels[0] or 0)


def _grade(mask: Mask, row: int, column: int) -> int | None:
    """The only grade in the middle third of a patch; None where there is none, or several."""
    third = SIDE // 3
    middle = mask[row + third : row + 2 * third, column + third : column + 2 * third]
    found = np.unique(middle[middle != _NOT_OUTLINED])
    return int(found[0]) if len(found) == 1 else None


def _patch(spot: Path, corner: tuple[int, int]) -> Image:
    """Pixels of one patch."""
    row, column = corner
    return _spot(spot)[row : row + SIDE, column : column + SIDE]


@lru_cache(maxsize=1)
def _spot(path: Path) -> Image:
    """A spot, kept while its patches are read one after the other."""
    return read_image(path)


def _patches(root: Path, folder: Path, splits: tuple[str, ...]) -> Iterator[Record]:
    for core in subfolders(folder):
        split = _SPLIT_OF_ARRAY.get(core.name.split("_")[0])
        if split not in splits:
            known = ", ".join(a for a, s in _SPLIT_OF_ARRAY.items() if s in splits)
            raise layout_error(root, core, f"expected a core of the arrays {known}")
        for path in nonempty_images(root, core):
            match = named(_NAME, root, path, f"{core.name}_patch_<NN>_class_<c>.jpg")
            if match["core"] != core.name:
                raise layout_error(root, path, f"lies in {core.name}, not its core")
            yield image_record(root, path, {"gleason": int(match["label"])}, split, core.name)
