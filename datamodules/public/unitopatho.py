"""UniToPatho: colorectal polyps in six classes."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.core.options import ReaderOptions
from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import folder_with, image_record, note_unlisted
from datamodules.formats.tables import read_table
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import slides

CLASSES = ("HP", "NORM", "TA.HG", "TA.LG", "TVA.HG", "TVA.LG")
_NAME, _LABEL, _TITLE = "image_id", "top_label", "top_label_name"
_SLIDE_END = ".ndpi_ROI"
_GRADES = (  # malignancy of synthetic tissue by class
    *((0.1, 0.2), (0.0, 0.05), (0.7, 0.8), (0.35, 0.45), (0.85, 1.0), (0.5, 0.6)),
)


@dataclass
class UniToPathoOptions(ReaderOptions):
    """Options of `UniToPatho`.

    Attributes:
        width: of the patches in µm; the wide ones are few, 867 against 8,669.
    """

    width: Literal["800", "7000"] = "800"


class UniToPatho(DatasetReader):
    """UniToPatho: patches of 292 slides of colorectal polyps, one slide a patient.

    HP hyperplastic polyp, NORM normal; TA tubular and TVA tubulo-villous adenoma, each with high
    (HG) or low (LG) grade dysplasia.

    Layout, for patches of 800 and of 7000 µm (option `width`):

        800/train.csv, 800/test.csv     image_id, top_label (0 to 5), top_label_name, and more
        800/<class>/<image_id>          "<slide>.ndpi_ROI__mpp0.44_reg<r>_crop_sk<k>_(x,y,w,h).png"

    Split: as published, 6,270 and 2,399 of the small ones; no patient lies in both.
    Grouping: the slide, which is the name up to ".ndpi".
    Quirks: names hold commas, spaces and brackets. The patches are 1812x1812 px; here each is
    scaled to one.
    """

    # [V] Columns, folders and classes: EIDOSLAB/UNITOPATHO, unitopatho.py and train.py; names of
    # images: its deephealth-uc2-800.yml; order of the classes and numbers: kaiko-ai/eva,
    # unitopatho.py. [K] That the wide patches have the same layout.
    title = "UniToPatho colorectal polyps"
    organs = ("colon",)
    licence = "CC BY 4.0"
    commercial = True
    citation = (
        "Barbano et al.: UniToPatho, a labeled histopathological dataset for colorectal polyps "
        "classification and adenoma dysplasia grading. ICIP 2021. "
        "doi:10.1109/ICIP42928.2021.9506198"
    )
    homepage = "https://ieee-dataport.org/open-access/unitopatho"
    sources = ("University of Turin colorectal polyps",)
    access = "login"
    obtain = f"get the archives from {homepage} (login needed) and unpack them there"
    images = 8_669
    extent = (1_812, 1_812)
    disk_gb = 60
    mpp = 0.4415
    patch_size = 512
    view = View.WHOLE
    grouping = "slide"
    tasks = (Task("polyp", TaskKind.CLASSIFICATION, CLASSES),)
    layout = ("**/train.csv", "**/test.csv")
    options_type = UniToPathoOptions
    published_splits = ("train", "test")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Patches of 240x240 px; a slide of each class in both parts."""
        for part in cls.published_splits:
            rows: list[tuple[object, ...]] = [(_NAME, _LABEL, _TITLE, "wsi")]
            count = max(len(CLASSES), images // 4)
            for index, number, slide in slides(rng, count, mpp=0.6, each=1, least=len(CLASSES)):
                label = index % len(CLASSES)
                drawn = slide.field(240, malignancy=_GRADES[label], epithelium=(0.4, 0.7))
                wsi = f"{CLASSES[label]} CASO {index + 1} - {part}"
                name = (
                    f"{wsi}.ndpi_ROI__mpp0.44_reg000_crop_sk{number:05d}_({number},7,1812,1812).png"
                )
                write_image(root / "800" / CLASSES[label] / name, drawn.image)
                rows.append((name, label, CLASSES[label], wsi))
            with (root / "800" / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)

    def records(self, root: Path) -> Iterator[Record]:
        """Training, then test, each in the order of its table."""
        width = self.options.width
        top = folder_with(root, width) / width
        listed = set()
        for part in self.published_splits:
            for row in read_table(root, top / f"{part}.csv", (_NAME, _LABEL, _TITLE)):
                name, label = row.file(_NAME), row.whole(_LABEL, 0, len(CLASSES) - 1)
                if row[_TITLE] != CLASSES[label]:
                    raise row.error(_TITLE, f"'{row[_TITLE]}', but {label} is {CLASSES[label]}")
                slide, end, _ = name.partition(_SLIDE_END)
                if not end:
                    raise row.error(_NAME, f"'{name}', expected <slide>{_SLIDE_END}...")
                listed.add(name)
                path = top / CLASSES[label] / name
                yield image_record(root, path, {"polyp": label}, part, slide)
        for name in CLASSES:
            note_unlisted(root, top / name, listed, "train.csv or test.csv")
