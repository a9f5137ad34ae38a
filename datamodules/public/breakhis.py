"""BreaKHis: benign and malignant tumours of the breast."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.core import notes
from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.options import ReaderOptions
from datamodules.core.records import Archive, Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import (
    image_record,
    layout_error,
    named,
    nonempty_images,
    relative,
    subfolders,
)
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import slides

CLASSES = ("benign", "malignant")
_TOP = "BreaKHis_v1/histology_slides/breast"
_NAME = re.compile(r"SOB_([BM])_([A-Z]+)-(\d+)-([0-9A-Z]+)-(\d+)-(\d+)\.png")

_TYPES = {
    "benign": {
        "adenosis": "A", "fibroadenoma": "F", "phyllodes_tumor": "PT", "tubular_adenoma": "TA",
    },
    "malignant": {
        "ductal_carcinoma": "DC", "lobular_carcinoma": "LC", "mucinous_carcinoma": "MC",
        "papillary_carcinoma": "PC",
    },
}  # fmt: skip
_GRADES = ((0.0, 0.2), (0.5, 1.0))  # malignancy of synthetic tissue by class


@dataclass
class BreaKHisOptions(ReaderOptions):
    """Options of `BreaKHis`.

    Attributes:
        magnification: 40X, 100X, 200X or 400X; every slide was photographed at all four.
    """

    magnification: Literal["40X", "100X", "200X", "400X"] = "400X"


class BreaKHis(DatasetReader):
    """BreaKHis: fields of breast tumours of 82 patients at four magnifications.

    Benign are adenosis (A), fibroadenoma (F), phyllodes tumour (PT) and tubular adenoma (TA);
    malignant are ductal (DC), lobular (LC), mucinous (MC) and papillary carcinoma (PC).

    Layout:

        BreaKHis_v1/histology_slides/breast/{benign,malignant}/SOB/<subtype>/
            SOB_<B|M>_<type>_<year>-<slide>/{40X,100X,200X,400X}/
                SOB_<B|M>_<type>-<year>-<slide>-<magnification>-<number>.png

    Split: none is used here. The slide's token identifies the patient (14-22549AB: 22549AB).
    Patient 13412 occurs among the ductal and the lobular carcinomas and is one group.
    Quirks: a few images are not 460 px high. The centre square is used. All malignant types are
    invasive, and no benign image holds an in-situ carcinoma. The resolution counts as unknown:
    the published pixel sizes do not fit the nuclei that the images show.
    """

    title = "BreaKHis breast cancer histopathology"
    organs = ("breast",)
    licence = "CC BY 4.0"
    commercial = True
    citation = (
        "Spanhol et al.: A Dataset for Breast Cancer Histopathological Image Classification. "
        "IEEE TBME 63 (2016). doi:10.1109/TBME.2015.2496264"
    )
    homepage = (
        "https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/"
    )
    sources = ("P&D Laboratory breast",)
    archives = (Archive("http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz"),)
    images = 7_909
    extent = (700, 460)
    disk_gb = 3.8
    view = View.WHOLE
    tasks = (Task("tumour", TaskKind.CLASSIFICATION, CLASSES, positive="malignant"),)
    layout = (f"{_TOP}/*/SOB",)
    options_type = BreaKHisOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """400X only; slide 13412 lies under two carcinomas, one image is 456 px high."""
        for label, name in enumerate(CLASSES):
            for index, number, slide in slides(rng, images // 2, ["breast"], 0.2, each=6, least=3):
                subtype, code = list(_TYPES[name].items())[index % 4]
                case = "13412" if label and index < 2 else f"{2100 + 37 * index + label}"
                height, grade = 456 if label == index == number else 460, _GRADES[label]
                drawn = slide.field(height, 700, malignancy=grade, epithelium=(0.4, 0.8))
                stem = f"SOB_{'BM'[label]}_{code}"
                folder = root / _TOP / name / "SOB" / subtype / f"{stem}_14-{case}" / "400X"
                write_image(folder / f"{stem}-14-{case}-400-{number + 1:03d}.png", drawn.image)

    def records(self, root: Path) -> Iterator[Record]:
        """Benign, then malignant, subtype by subtype, sorted."""
        expected = "SOB_<B|M>_<type>-<year>-<slide>-<magnification>-<number>.png"
        for label, name in enumerate(CLASSES):
            for folder in self._folders(root, root / _TOP / name / "SOB"):
                for path in nonempty_images(root, folder):
                    match = named(_NAME, root, path, expected)
                    if (match[1] == "M") != bool(label):
                        problem = "name and folder disagree about malignancy"
                        raise layout_error(root, path, problem)
                    yield image_record(root, path, {"tumour": label}, group=match[4])

    def _folders(self, root: Path, top: Path) -> Iterator[Path]:
        """The folder of the chosen magnification of each slide."""
        if not top.is_dir() and self.options.allow_missing:
            notes.skipped(relative(root, top), "class folder does not exist")
            return
        for subtype in subfolders(top):
            slides = subfolders(subtype)
            if not slides:
                raise layout_error(root, subtype, "the folder holds no slide")
            for folder in (slide / self.options.magnification for slide in slides):
                if folder.is_dir():
                    yield folder
                elif self.options.allow_missing:
                    notes.skipped(relative(root, folder), "slide without this magnification")
                else:
                    problem = "no such folder; options.allow_missing=true goes without"
                    raise DatasetNotFoundError(f"{relative(root, folder)}: {problem}")
