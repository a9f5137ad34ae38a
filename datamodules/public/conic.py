"""CoNIC: nuclei of the colon, outlined and typed."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import LayoutError
from datamodules.core.records import Boxes, Image, Mask, Record, Targets
from datamodules.formats.annotations import nucleus_tasks, typed_boxes
from datamodules.formats.arrays import npy_record, open_npy, whole_numbers
from datamodules.formats.layout import check_rows, folder_with
from datamodules.formats.tables import read_table
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import Scene, append_rows, slides
from datamodules.synthetic.tissues import NucleusType

NUCLEI = ("neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective")
_SIDE = 256

_CLASS_OF_TYPE = {  # of synthetic nuclei; dark small bodies stand for neutrophils
    NucleusType.NEOPLASTIC: 2, NucleusType.INFLAMMATORY: 3, NucleusType.CONNECTIVE: 6,
    NucleusType.DEAD: 1, NucleusType.EPITHELIAL: 2,
}  # fmt: skip
# Light that the cytoplasm of synthetic plasma cells and eosinophils lets through, per channel.
_CYTOPLASM = {4: (0.72, 0.62, 0.92), 5: (0.98, 0.55, 0.55)}


class CoNIC(DatasetReader):
    """CoNIC 2022: patches of Lizard, colon nuclei outlined and typed.

    Layout:

        images.npy        (n, 256, 256, 3)
        labels.npy        (n, 256, 256, 2): instance ids, class of the pixel (0 background)
        patch_info.csv    one column patch_info, "<source image>-<number>"
        counts.csv        cells per class, not needed

    Split: none is published. Grouping: the text before the last "-" of patch_info; patches of one
    source image overlap.
    Quirk: Lizard is made of images of GlaS, CRAG, CoNSeP, DigestPath, PanNuke and TCGA, so
    none of these is unseen after training on it.
    """

    title = "CoNIC 2022 (Lizard)"
    organs = ("colon",)
    licence = "CC BY-NC-SA 4.0"
    commercial = False
    citation = (
        "Graham et al.: Lizard: A large-scale dataset for colonic nuclear instance segmentation "
        "and classification. ICCV Workshops 2021. arXiv 2108.11195"
    )
    homepage = "https://conic-challenge.grand-challenge.org"
    sources = ("Warwick UHCW colon", "DigestPath", "PanNuke", "TCGA")
    access = "login"
    obtain = (
        f"register at {homepage}, fetch the training data and put images.npy, labels.npy and "
        "patch_info.csv there"
    )
    images = 4_981
    extent = (256, 256)
    disk_gb = 2.3
    mpp = 0.5
    view = View.WHOLE
    grouping = "source image"
    tasks = nucleus_tasks(NUCLEI)
    layout = ("**/images.npy", "**/labels.npy", "**/patch_info.csv")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Patches of source images of three cohorts, four each."""
        table = np.array([*(_CLASS_OF_TYPE[kind] for kind in NucleusType), 0], np.uint16)
        pixels, labels = [], []
        append_rows(root / "patch_info.csv", ["patch_info"])
        append_rows(root / "counts.csv", NUCLEI)
        for source, number, slide in slides(rng, max(12, images), mpp=cls.mpp, each=4, least=3):
            drawn = slide.field(_SIDE, malignancy=(0.0, 1.0))
            classes = table[np.append(drawn.nucleus_types, len(NucleusType))]
            immune = np.flatnonzero(classes == 3)
            classes[immune[0::4]], classes[immune[1::4]] = 4, 5
            pixels.append(_stained(drawn, classes))
            labels.append(np.stack([drawn.nuclei, classes[drawn.nuclei - 1]], axis=-1))
            cohort = ("consep", "dpath", "glas")[source % 3]
            append_rows(root / "patch_info.csv", [f"{cohort}_{source + 1}-{number:04d}"])
            append_rows(root / "counts.csv", np.bincount(classes, minlength=len(NUCLEI) + 1)[1:])
        np.save(root / "images.npy", np.array(pixels, np.uint8))
        np.save(root / "labels.npy", np.array(labels, np.uint16))

    def records(self, root: Path) -> Iterator[Record]:
        """One record per row of the arrays."""
        top = folder_with(root, "images.npy")
        images, labels, names = (top / n for n in ("images.npy", "labels.npy", "patch_info.csv"))
        count = len(open_npy(images, (None, _SIDE, _SIDE, 3)))
        rows = read_table(root, names, ("patch_info",))
        check_rows(root, labels, len(open_npy(labels, (None, _SIDE, _SIDE, 2))), count)
        check_rows(root, names, len(rows), count)
        for row, entry in enumerate(rows):
            group, _, number = entry["patch_info"].rpartition("-")
            if not group or not number.isdecimal():
                problem = f"'{entry['patch_info']}', expected <source image>-<number>"
                raise entry.error("patch_info", problem)
            targets: Targets = {
                "nuclei": partial(type_mask, labels, row),
                "nuclei_detection": partial(type_boxes, labels, row),
            }
            yield npy_record(root, images, row, targets, group=group)


def type_mask(labels: Path, row: int) -> Mask:
    """Class of the nucleus at each pixel, 0 is background."""
    return _label(labels, row)[:, :, 1].astype(np.uint8)


def type_boxes(labels: Path, row: int) -> Boxes:
    """The box around each nucleus, labelled with the class that most of its pixels have."""
    label = _label(labels, row)
    return typed_boxes(f"{labels.name}#{row}", label[:, :, 0], label[:, :, 1])


def _label(labels: Path, row: int) -> NDArray[Any]:
    """Instances and classes of one patch, (256, 256, 2)."""
    where = f"{labels}#{row}"
    label = whole_numbers(where, open_npy(labels, (None, _SIDE, _SIDE, 2))[row])
    high = int(label[:, :, 1].max())
    if high > len(NUCLEI):
        raise LayoutError(f"{where}: class {high}, expected 0 to {len(NUCLEI)}")
    if ((label[:, :, 0] > 0) != (label[:, :, 1] > 0)).any():
        raise LayoutError(f"{where}: pixels of a nucleus without class, or of a class without one")
    return label


def _stained(drawn: Scene, classes: NDArray[np.uint16]) -> Image:
    """The scene's image with a coloured rim around the nuclei whose cytoplasm tells their class."""
    image, free = drawn.image.astype(np.float32), drawn.nuclei == 0
    of_pixel = classes[drawn.nuclei - 1]
    for number, light in _CYTOPLASM.items():
        nuclei = ((of_pixel == number) & ~free).astype(np.uint8)
        rim = (cv2.dilate(nuclei, np.ones((5, 5), np.uint8)) > 0) & free
        image[rim] *= light
    return image.astype(np.uint8)
