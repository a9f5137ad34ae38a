"""Gleason grades of prostate cancer on tissue microarrays (Arvaniti)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.options import ReaderOptions
from datamodules.core.records import SPLITS, Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import (
    folder_with,
    image_record,
    layout_error,
    named,
    nonempty_images,
    subfolders,
)
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View, resize_image
from datamodules.synthetic.scene import slides

CLASSES = ("benign", "gleason_3", "gleason_4", "gleason_5")
_TRAIN = "train_validation_patches_750"
_TEST = "test_patches_750"
_NAME = re.compile(r"(?P<core>.+)_patch_\d+_class_(?P<label>\d+)\.jpg")
_SPLIT_OF_ARRAY = dict.fromkeys(("ZT111", "ZT199", "ZT204"), "train")
_SPLIT_OF_ARRAY |= {"ZT76": "val", "ZT80": "test"}
_GRADES = ((0.0, 0.1), (0.3, 0.45), (0.55, 0.7), (0.85, 1.0))  # malignancy of synthetic tissue


@dataclass
class GleasonOptions(ReaderOptions):
    """Options of the Gleason TMA reader.

    Attributes:
        pathologist: whose labels the test array carries, 1 or 2; the two disagree.
    """

    pathologist: Literal[1, 2] = 1


class GleasonTMA(DatasetReader):
    """Gleason TMA (Arvaniti et al.): patches of prostate cancer tissue microarrays.

    Layout; the file name carries the class:

        train_validation_patches_750/<core>/<core>_patch_<NN>_class_<c>.jpg
        test_patches_750/{patho_1,patho_2}/<core>/<core>_patch_<NN>_class_<c>.jpg

    Split: by array, the first token of the core (ZT76_39_A_1_1): train ZT111, ZT199, ZT204; val
    ZT76; test ZT80 (15,303 / 2,482 / 4,967).
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
    obtain = (
        f"fetch the spots and masks of {homepage}, run create_patches.py of "
        "github.com/eiriniar/gleason_CNN on them and put the two patch folders there"
    )
    images = 22_752
    extent = (750, 750)
    disk_gb = 4
    mpp = 0.23
    view = View.WHOLE
    grouping = "core"
    published_splits = SPLITS
    tasks = (Task("gleason", TaskKind.CLASSIFICATION, CLASSES),)
    layout = (f"**/{_TRAIN}/*/*", f"**/{_TEST}/*/*/*")
    options_type = GleasonOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Cores of all five arrays; the second pathologist reads every other patch one higher."""
        for core, number, slide in slides(rng, images, ["prostate"], 2 * cls.mpp, least=10):
            array, label = list(_SPLIT_OF_ARRAY)[core % 5], (core + number) % len(_GRADES)
            drawn = slide.field(375, malignancy=_GRADES[label], epithelium=(0.4, 0.9))
            places = {_TRAIN: label}
            if _SPLIT_OF_ARRAY[array] == "test":
                other = min(3, label + number % 2)
                places = {f"{_TEST}/patho_1": label, f"{_TEST}/patho_2": other}
            for folder, grade in places.items():
                name = f"{array}_{core + 1}_A_1_1"
                path = root / folder / name / f"{name}_patch_{number:02d}_class_{grade}.jpg"
                write_image(path, resize_image(drawn.image, (750, 750)))

    def records(self, root: Path) -> Iterator[Record]:
        """One record per patch, core by core."""
        top = folder_with(root, _TRAIN)
        yield from _patches(root, top / _TRAIN, ("train", "val"))
        test = top / _TEST / f"patho_{self.options.pathologist}"
        if not test.is_dir():
            raise DatasetNotFoundError(f"{test}: no such folder; options.pathologist asks for it")
        yield from _patches(root, test, ("test",))


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
