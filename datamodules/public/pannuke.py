"""PanNuke: nuclei of nineteen tissues, outlined and typed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.core.options import ReaderOptions
from datamodules.core.records import SPLITS, Archive, Boxes, Mask, Record, Targets, Task, TaskKind
from datamodules.formats.annotations import instance_boxes, nucleus_tasks
from datamodules.formats.arrays import npy_record, open_npy, whole_numbers
from datamodules.formats.layout import check_rows, folder_with, layout_error
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import Slide
from datamodules.synthetic.stain import Stain
from datamodules.synthetic.tissues import Tissue

NUCLEI = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
TISSUES = (
    "Adrenal_gland", "Bile-duct", "Bladder", "Breast", "Cervix", "Colon", "Esophagus", "HeadNeck",
    "Kidney", "Liver", "Lung", "Ovarian", "Pancreatic", "Prostate", "Skin", "Stomach", "Testis",
    "Thyroid", "Uterus",
)  # fmt: skip
_ORGANS = (  # styles of synthetic tissue, in the order of `TISSUES`
    *("adrenal", "bile-duct", "bladder", "breast", "cervix", "colon", "esophagus", "head-neck"),
    *("kidney", "liver", "lung", "ovary", "pancreas", "prostate", "skin", "stomach", "testis"),
    *("thyroid", "uterus"),
)
_SIDE = 256
_ROTATIONS = {1: (1, 2, 3), 2: (2, 1, 3), 3: (3, 2, 1)}  # train, val, test
_URL = "https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke"
# Not published: checksums and bytes that several independent programs found.
_FOLDS = {
    1: ("6e19ad380300e8ce9480f9ab6a14cc91fa4b6a511609b40e3d70bdf9c881ed0b", 700_275_281),
    2: ("5bc540cc509f64b5f5a274d6e5a245527dbd3e6d3155d43555115c5d54709b07", 658_842_552),
    3: ("c14d372981c42f611ebc80afad01702b89cad8c1b3089daa31931cf5a4b1a39d", 717_969_882),
}


@dataclass
class PanNukeOptions(ReaderOptions):
    """Options of `PanNuke`.

    Attributes:
        rotation: which official rotation of the folds: 1 trains on fold 1, validates on 2 and
            tests on 3; 2 is (2, 1, 3); 3 is (3, 2, 1).
    """

    rotation: Literal[1, 2, 3] = 1


class PanNuke(DatasetReader):
    """PanNuke: nuclei of 19 tissues, outlined and typed.

    Layout, for the folds 1 to 3:

        Fold <k>/images/fold<k>/images.npy   (n, 256, 256, 3) floats of 0 to 255
        Fold <k>/images/fold<k>/types.npy    (n,) names of tissues
        Fold <k>/masks/fold<k>/masks.npy     (n, 256, 256, 6) instance ids, one channel per type;
                                             channel 5 is background, a mask and no instances

    Split: by fold, in one of three official rotations (option `rotation`).
    Grouping: no patient is published; one patient can lie in several folds.
    Quirks: labels are semi-automatic; dead cells are very rare; some images hold no nucleus;
    breast and colon dominate. The arrays of one fold are several GB: rows are read one by one.
    Patches keep their published resolution: their labels belong to the whole patch.
    """

    title = "PanNuke"
    organs = ("19 tissues",)
    licence = "CC BY-NC-SA 4.0"
    commercial = False
    citation = (
        "Gamper et al.: PanNuke: an open pan-cancer histology dataset for nuclei instance "
        "segmentation and classification. ECDP 2019. doi:10.1007/978-3-030-23937-4_2"
    )
    homepage = _URL
    sources = ("PanNuke", "TCGA")
    archives = tuple(
        Archive(f"{_URL}/fold_{fold}.zip", f"sha256:{sha256}", size)
        for fold, (sha256, size) in _FOLDS.items()
    )
    images = 7_901
    extent = (256, 256)
    disk_gb = 37
    mpp = 0.25
    view = View.WHOLE
    grouping = "image"
    tasks = (*nucleus_tasks(NUCLEI), Task("tissue", TaskKind.CLASSIFICATION, TISSUES))
    layout = tuple(f"**/images/fold{fold}/images.npy" for fold in (1, 2, 3))
    options_type = PanNukeOptions
    published_splits = SPLITS

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Three folds in 64-bit floats as published, 5 MB an image; the first has no nucleus."""
        count = max(4, images // 3)
        for fold in (1, 2, 3):
            arrays, organs = [], [(fold * count + row) % len(TISSUES) for row in range(count)]
            for part, channels in (("images", 3), ("masks", len(NUCLEI) + 1)):
                path = root / f"Fold {fold}/{part}/fold{fold}/{part}.npy"
                path.parent.mkdir(parents=True)
                shape = (count, _SIDE, _SIDE, channels)
                arrays.append(np.lib.format.open_memmap(path, "w+", np.float64, shape))
            np.save(root / f"Fold {fold}/images/fold{fold}/types.npy", [TISSUES[o] for o in organs])
            for row, organ in enumerate(organs):
                blank, grade = (None if row else Tissue.BACKGROUND), (0.4, 1.0) if row % 2 else 0.0
                slide = Slide(rng, _ORGANS[organ], cls.mpp, Stain.draw(rng))
                drawn = slide.field(_SIDE, tissue=blank, malignancy=grade)
                kind = np.append(drawn.nucleus_types, len(NUCLEI))[drawn.nuclei - 1, None]
                ids = np.maximum(drawn.nuclei, 1)[..., None]  # background is marked with 1
                arrays[0][row] = drawn.image
                arrays[1][row] = np.where(kind == np.arange(len(NUCLEI) + 1), ids, 0)

    def records(self, root: Path) -> Iterator[Record]:
        """The training fold, the validation fold, the test fold, each in its own order."""
        for fold, split in zip(_ROTATIONS[self.options.rotation], SPLITS, strict=True):
            top = folder_with(root, f"images/fold{fold}/images.npy")
            images = top / f"images/fold{fold}/images.npy"
            masks = top / f"masks/fold{fold}/masks.npy"
            # [K] The number of images per fold differs between copies: any is read.
            count = len(open_npy(images, (None, _SIDE, _SIDE, 3)))
            check_rows(root, masks, len(open_npy(masks, (None, _SIDE, _SIDE, 6))), count)
            tissues = _tissues(root, images.with_name("types.npy"))
            check_rows(root, images.with_name("types.npy"), len(tissues), count)
            for row, tissue in enumerate(tissues):
                targets: Targets = {
                    "nuclei": partial(type_mask, masks, row),
                    "nuclei_detection": partial(type_boxes, masks, row),
                    "tissue": tissue,
                }
                yield npy_record(root, images, row, targets, split)


def _tissues(root: Path, path: Path) -> list[int]:
    # [K] Copies write spaces, underscores and capitals in different ways.
    known = {_plain(name): index for index, name in enumerate(TISSUES)}
    names = [str(name) for name in open_npy(path, (None,), texts=True)]
    for row, name in enumerate(names):
        if _plain(name) not in known:
            problem = f"tissue '{name}', expected one of {', '.join(TISSUES)}"
            raise layout_error(root, path.with_name(f"{path.name}#{row}"), problem)
    return [known[_plain(name)] for name in names]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def type_mask(masks: Path, row: int) -> Mask:
    """Type of the nucleus at each pixel: 0 background, channel + 1 elsewhere."""
    covered = _instances(masks, row) > 0
    return np.where(covered.any(axis=2), covered.argmax(axis=2) + 1, 0).astype(np.uint8)


def type_boxes(masks: Path, row: int) -> Boxes:
    """The box around each nucleus, labelled with its channel."""
    boxes = [instance_boxes(ids)[0] for ids in np.moveaxis(_instances(masks, row), 2, 0)]
    labels = np.repeat(np.arange(len(boxes)), [len(part) for part in boxes])
    return Boxes(np.concatenate(boxes), labels)


def _instances(masks: Path, row: int) -> NDArray[Any]:
    """Instance ids, (256, 256, 5); the background's channel is left out."""
    ids = open_npy(masks, (None, _SIDE, _SIDE, 6))[row, :, :, : len(NUCLEI)]
    return whole_numbers(f"{masks}#{row}", ids)
