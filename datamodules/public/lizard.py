"""Lizard: nuclei of the colon in regions of five other datasets."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.options import ReaderOptions
from datamodules.core.records import Boxes, Mask, Record, Targets
from datamodules.formats.annotations import nucleus_tasks, typed_boxes
from datamodules.formats.arrays import whole_numbers
from datamodules.formats.images import write_image
from datamodules.formats.layout import (
    image_record,
    list_images,
    note_unlisted,
    relative,
    subfolders,
)
from datamodules.formats.matlab import read_mat, write_mat
from datamodules.formats.tables import read_table
from datamodules.public.conic import NUCLEI
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import append_rows, slides

_CLASS_OF_TYPE = np.array([2, 3, 6, 1, 2])  # of synthetic nuclei
_LABELS, _IMAGES = "Lizard_Labels", ("Lizard_Images1", "Lizard_Images2")
_COHORTS = ("consep", "crag", "dpath", "glas", "pannuke")


@dataclass
class LizardOptions(ReaderOptions):
    """Options of `Lizard`.

    Attributes:
        test_part: which of the three published parts is the test; the two others are training.
    """

    test_part: Literal[1, 2, 3] = 3


class Lizard(DatasetReader):
    """Lizard: 238 regions of the colon at 20x with half a million nuclei of six types.

    The regions are those of CoNSeP, CRAG, DigestPath, GlaS and PanNuke, named at the front of each
    file name, in the size of their sources. CoNIC is made of the same nuclei.

    Layout, in one or two folders each, as the three archives are packed:

        Lizard_Images1/<name>.png, Lizard_Images2/<name>.png
        Lizard_Labels/Labels/<name>.mat     inst_map; id, class, bbox and centroid of each nucleus
        Lizard_Labels/info.csv              Filename, Source, Split (part 1, 2 or 3)

    Split: one of the three published parts is the test (option `test_part`).
    Grouping: patients are not named.
    Quirk: the ids of inst_map have gaps; `id` lists those in use, in the order of `class`.
    """

    # [V] Folders, info.csv and keys of the .mat files: constantinpape/torch-em, lizard.py, and the
    # Lizard module of cellseg_models.pytorch, with the meaning of `id` and `class`.
    title = "Lizard colonic nuclei"
    organs = ("colon",)
    licence = "CC BY-NC-SA 4.0"
    commercial = False
    citation = (
        "Graham et al.: Lizard: A large-scale dataset for colonic nuclear instance segmentation "
        "and classification. ICCV Workshops 2021. arXiv 2108.11195"
    )
    homepage = "https://warwick.ac.uk/fac/cross_fac/tia/data/lizard"
    sources = ("Warwick UHCW colon", "DigestPath", "PanNuke", "TCGA")
    access = "login"
    obtain = (
        f"sign in at {homepage} and get lizard_images1.zip, lizard_images2.zip and "
        "lizard_labels.zip"
    )
    images = 238
    extent = (1_000, 900)
    disk_gb = 0.8
    mpp = 0.5
    grouping = "image"
    tasks = nucleus_tasks(NUCLEI)
    layout = ("**/Lizard_Images1/*.png", f"**/{_LABELS}/Labels/*.mat", f"**/{_LABELS}/info.csv")
    options_type = LizardOptions
    published_splits = ("train", "test")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Regions of 300x340 px of the five cohorts, a third for each part; ids have gaps."""
        labels = root / "lizard_labels" / _LABELS
        append_rows(labels / "info.csv", ("Filename", "Source", "Split"))
        for index, _, slide in slides(rng, images // 2, mpp=cls.mpp, each=1, least=6):
            drawn = slide.field(300, 340, malignancy=(0.0, 1.0))
            classes = _CLASS_OF_TYPE[drawn.nucleus_types]
            immune = np.flatnonzero(classes == 3)
            classes[immune[0::4]], classes[immune[1::4]] = 4, 5
            cohort, part = _COHORTS[index % len(_COHORTS)], 1 + index % 2
            name = f"{cohort}_{index + 1}"
            write_image(
                root / f"lizard_images{part}/Lizard_Images{part}" / f"{name}.png", drawn.image
            )
            write_mat(
                labels / "Labels" / f"{name}.mat",
                {
                    "inst_map": 3 * drawn.nuclei,
                    "id": 3 * np.arange(1, len(classes) + 1, dtype=np.int32)[:, None],
                    "class": classes[:, None].astype(np.uint8),
                },
            )
            append_rows(labels / "info.csv", (name, cohort, 1 + index % 3))

    def records(self, root: Path) -> Iterator[Record]:
        """In the order of info.csv."""
        tops = (root, *subfolders(root))
        folders = {folder.name: folder for top in tops for folder in subfolders(top)}
        for name in (_LABELS, *_IMAGES):
            if name not in folders and (name == _LABELS or not self.options.allow_missing):
                raise DatasetNotFoundError(f"{root}: no folder {name} here or one folder deeper")
        parts = [folders[name] for name in _IMAGES if name in folders]
        images = {path.stem: path for folder in parts for path in list_images(folder)}
        info, listed = folders[_LABELS] / "info.csv", set[str]()
        for row in read_table(root, info, ("Filename", "Split")):
            name = row.file("Filename").removesuffix(".png")
            mat = info.parent / "Labels" / f"{name}.mat"
            if not mat.is_file():
                raise row.error("Filename", f"{relative(root, mat)} is missing")
            targets: Targets = {
                "nuclei": partial(type_mask, mat),
                "nuclei_detection": partial(type_boxes, mat),
            }
            split = "test" if row.whole("Split", 1, 3) == self.options.test_part else "train"
            path = images.get(name, root / _IMAGES[0] / f"{name}.png")
            yield image_record(root, path, targets, split)
            listed.add(path.name)
        for folder in parts:
            note_unlisted(root, folder, listed, "info.csv")


def type_mask(mat: Path) -> Mask:
    """Class of the nucleus at each pixel, 0 is background."""
    return _maps(mat)[1].astype(np.uint8)


def type_boxes(mat: Path) -> Boxes:
    """The box around each nucleus with its class."""
    return typed_boxes(mat.name, *_maps(mat))


def _maps(mat: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Number and class of the nucleus of each pixel."""
    arrays = read_mat(mat, "inst_map", "id", "class")
    ids, numbers, classes = (whole_numbers(str(mat), array) for array in arrays)
    if numbers.size != classes.size:
        raise LayoutError(f"{mat}: {classes.size} classes for {numbers.size} ids")
    high = max(ids.max(initial=0), numbers.max(initial=0))
    if high > ids.size or classes.max(initial=0) > len(NUCLEI):
        limits = f"ids up to {ids.size}, classes up to {len(NUCLEI)}"
        raise LayoutError(f"{mat}: id {high} or class {classes.max()}, expected {limits}")
    class_of = np.zeros(high + 1, np.int64)
    class_of[numbers.ravel()] = classes.ravel()
    class_of[0] = 0
    return ids, class_of[ids]
