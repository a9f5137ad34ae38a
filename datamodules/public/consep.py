"""CoNSeP: nuclei of the colon, outlined and typed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import LayoutError
from datamodules.core.options import ReaderOptions
from datamodules.core.records import Boxes, Mask, Record, Targets, Task
from datamodules.formats.annotations import nucleus_tasks, typed_boxes
from datamodules.formats.arrays import whole_numbers
from datamodules.formats.images import write_image
from datamodules.formats.layout import folder_with, image_record, list_files, list_images, paired
from datamodules.formats.matlab import read_mat, write_mat
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import slides

CODES = (
    "other", "inflammatory", "healthy epithelial", "malignant epithelial",
    "fibroblast", "muscle", "endothelial",
)  # fmt: skip
GROUPS = ("other", "inflammatory", "epithelial", "spindle-shaped")
_GROUP_OF_CODE = np.array([0, 1, 2, 3, 3, 4, 4, 4])
_CODE_OF_TYPE = np.array([4, 2, 5, 1, 3, 0])  # of synthetic nuclei; the last is background
_SPLITS = {"Train": "train", "Test": "test"}


@dataclass
class CoNSePOptions(ReaderOptions):
    """Options of `CoNSeP`.

    Attributes:
        classes: "grouped" for the four classes of its authors' results, "codes" for all seven.
    """

    classes: Literal["grouped", "codes"] = "grouped"


class CoNSeP(DatasetReader):
    """CoNSeP: 41 fields of colorectal adenocarcinoma with 24,319 nuclei.

    The classes other, inflammatory, epithelial (healthy or malignant) and spindle-shaped
    (fibroblast, muscle, endothelial) are those of its authors' results.

    Layout:

        Train/Images/train_<n>.png, Test/Images/test_<n>.png    with an alpha channel in some copies
        Train/Labels/train_<n>.mat, Test/Labels/test_<n>.mat    inst_map, type_map, inst_type and
                                                                inst_centroid
        Train/Overlay, Test/Overlay                             not needed

    Split: as published, 27 and 14. The fields are of 16 patients who are not named, so one may lie
    on both sides.
    Quirk: Lizard and CoNIC contain the same fields.
    """

    # [V] Keys, codes and sizes: README of the archive (in copies of vqdang/hover_net). Folders and
    # numbers: kaiko-ai/eva, docs/datasets/consep.md. [K] Alpha channel.
    title = "CoNSeP colorectal nuclei"
    organs = ("colon",)
    licence = "research use; see the publisher's page"
    citation = (
        "Graham et al.: HoVer-Net: Simultaneous segmentation and classification of nuclei in "
        "multi-tissue histology images. Medical Image Analysis 58 (2019). "
        "doi:10.1016/j.media.2019.101563"
    )
    homepage = "https://warwick.ac.uk/fac/cross_fac/tia/data/hovernet"
    sources = ("Warwick UHCW colon",)
    access = "login"
    obtain = f"sign in at {homepage} and get consep.zip"
    images = 41
    extent = (1_000, 1_000)
    disk_gb = 0.8
    mpp = 0.25
    grouping = "image"
    tasks = nucleus_tasks(GROUPS)
    layout = ("**/Train/Images/*.png", "**/Train/Labels/*.mat")
    options_type = CoNSePOptions
    published_splits = ("train", "test")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Fields of 512x512 px, each for six images, one with alpha; every third is a test."""
        for index, _, slide in slides(rng, images // 6, mpp=cls.mpp, each=1, least=4):
            drawn = slide.field(512, malignancy=(0.0, 1.0))
            codes = _CODE_OF_TYPE[np.append(drawn.nucleus_types, 5)]
            spindles = np.flatnonzero(codes == 5)
            codes[spindles[1::3]], codes[spindles[2::3]] = 6, 7
            part = "Test" if index % 3 == 2 else "Train"
            folder, name = root / part, f"{part.lower()}_{index + 1}"
            alpha = ((0, 0), (0, 0), (0, int(index == 0)))
            write_image(
                folder / "Images" / f"{name}.png",
                np.pad(drawn.image, alpha, constant_values=255),
            )
            maps = {"inst_map": drawn.nuclei, "type_map": codes[drawn.nuclei - 1]}
            write_mat(
                folder / "Labels" / f"{name}.mat",
                {key: value.astype(np.float64) for key, value in maps.items()}
                | {"inst_type": codes[:-1, None].astype(np.float64)},
            )

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """Four classes, or the seven published codes where the option asks for them."""
        return nucleus_tasks(GROUPS if self.options.classes == "grouped" else CODES)

    def records(self, root: Path) -> Iterator[Record]:
        """Training fields, then test fields, sorted by name."""
        top, grouped = folder_with(root, "Train/Images"), self.options.classes == "grouped"
        for part, split in _SPLITS.items():
            if part == "Test" and not (top / part).is_dir():
                continue
            images, labels = top / part / "Images", top / part / "Labels"
            files = list_images(images), list_files(labels, {".mat"})
            missing = self.options.allow_missing
            for path, mat in paired(root, *files, f"{part}/Labels/{{}}.mat", missing):
                targets: Targets = {
                    "nuclei": partial(type_mask, mat, grouped),
                    "nuclei_detection": partial(type_boxes, mat, grouped),
                }
                yield image_record(root, path, targets, split)


def type_mask(mat: Path, grouped: bool) -> Mask:
    """Class of the nucleus at each pixel, 0 is background."""
    return _maps(mat, grouped)[1].astype(np.uint8)


def type_boxes(mat: Path, grouped: bool) -> Boxes:
    """The box around each nucleus with its class."""
    return typed_boxes(mat.name, *_maps(mat, grouped))


def _maps(mat: Path, grouped: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Number and class of the nucleus of each pixel."""
    ids, kinds = (whole_numbers(str(mat), array) for array in read_mat(mat, "inst_map", "type_map"))
    if ids.shape != kinds.shape:
        raise LayoutError(f"{mat}: inst_map has shape {ids.shape}, type_map {kinds.shape}")
    if kinds.max(initial=0) > len(CODES):
        raise LayoutError(f"{mat}: class {kinds.max()}, expected 0 to {len(CODES)}")
    kinds = np.where(ids > 0, kinds, 0)
    return ids, _GROUP_OF_CODE[kinds] if grouped else kinds
