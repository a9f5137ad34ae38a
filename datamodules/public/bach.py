"""BACH: breast cancer, four classes of microscopy images."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.core import notes
from datamodules.core.options import ReaderOptions
from datamodules.core.records import Archive, Record, Task, TaskKind
from datamodules.formats.cells import spelling
from datamodules.formats.images import write_image
from datamodules.formats.layout import (
    class_images,
    folder_with,
    image_record,
    layout_error,
    named,
    relative,
)
from datamodules.formats.tables import has_table, read_rows
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import append_rows, slides

CLASSES = ("Benign", "InSitu", "Invasive", "Normal")
_PREFIXES = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
_NAME = re.compile(r"(?P<prefix>b|is|iv|n)(?P<number>\d{3})\.tif")
_PER_CLASS = 100
# Ranges of the sorted list of all 400 images (class by class, then by number) that train.
_TRAIN = ((0, 41), (59, 60), (90, 139), (169, 240), (258, 260), (273, 345), (368, 400))
_GRADES = {  # malignancy of synthetic tissue
    "Normal": (0.0, 0.05), "Benign": (0.12, 0.25), "InSitu": (0.4, 0.55), "Invasive": (0.8, 1.0),
}  # fmt: skip


@dataclass
class BACHOptions(ReaderOptions):
    """Options of `BACH`.

    Attributes:
        classes: 2 for invasive against the rest, 4 for the published classes.
    """

    classes: Literal[2, 4] = 2


class BACH(DatasetReader):
    """BACH, the breast cancer challenge of ICIAR 2018: 100 images in each of four classes.

    With the option `classes: 4` the task is `histology` (Benign, InSitu, Invasive, Normal).

    Layout:

        ICIAR2018_BACH_Challenge/Photos/
            Benign/b<NNN>.tif, InSitu/is<NNN>.tif, Invasive/iv<NNN>.tif, Normal/n<NNN>.tif
            microscopy_ground_truth.csv      the same labels again, compared where it is there

    The challenge's own test images have no public labels.
    Split: no official one; train and test are the patient-safe parts of kaiko's eva benchmark,
    268 and 132 images, given by ranges of the sorted list.
    Grouping: the published table of patients is not complete. Patients are kept apart by the
    split above and by nothing else: evaluate with folds: 0.
    Quirk: Windows' Thumbs.db may lie in the folders; whatever is no image is skipped.
    """

    title = "BACH (ICIAR 2018)"
    organs = ("breast",)
    licence = "CC BY-NC-ND 4.0"
    commercial = False
    citation = (
        "Aresta et al.: BACH: Grand challenge on breast cancer histology images. Medical Image "
        "Analysis 56 (2019). doi:10.1016/j.media.2019.05.010"
    )
    homepage = "https://zenodo.org/records/3632035"
    sources = ("BACH",)
    archives = (
        Archive(
            f"{homepage}/files/ICIAR2018_BACH_Challenge.zip",
            "md5:8ae1801334aa943c44627c1eef3631b2",
        ),
    )
    images = 400
    extent = (2_048, 1_536)
    disk_gb = 10.4
    download_gb = 10.4
    mpp = 0.42
    patch_size = 512
    view = View.WHOLE
    grouping = "image"
    tasks = (Task("invasive", TaskKind.CLASSIFICATION, ("Other", "Invasive"), positive="Invasive"),)
    layout = ("**/Photos/Invasive/iv*.tif",)
    options_type = BACHOptions
    published_splits = ("train", "test")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Smaller fields, 768x576 px, with numbers from all over the list, and a Thumbs.db."""
        photos = root / "ICIAR2018_BACH_Challenge" / "Photos"
        for name, grade in _GRADES.items():
            fields = slides(rng, images // 4, ["breast"], cls.mpp, each=2, least=2)
            for place, (_, _, slide) in enumerate(fields):
                file = f"{_PREFIXES[name]}{1 + 37 * place % _PER_CLASS:03d}.tif"
                drawn = slide.field(576, 768, malignancy=grade, epithelium=(0.4, 0.8))
                write_image(photos / name / file, drawn.image)
                append_rows(photos / "microscopy_ground_truth.csv", (file, name))
        (photos / CLASSES[0] / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """Invasive against the rest, or the four classes where the option asks for them."""
        if self.options.classes == 2:
            return self.tasks
        return (Task("histology", TaskKind.CLASSIFICATION, CLASSES),)

    def records(self, root: Path) -> Iterator[Record]:
        """Class by class, sorted by file name."""
        photos = folder_with(root, "Photos") / "Photos"
        table = photos / "microscopy_ground_truth.csv"
        again, listed = _labels(root, table), has_table(root, table)
        complete = not self.options.allow_missing
        for path, label in class_images(root, photos, CLASSES, complete):
            prefix = _PREFIXES[CLASSES[label]]
            match = named(_NAME, root, path, f"{prefix}<NNN>.tif")
            place = int(match["number"]) - 1
            if match["prefix"] != prefix or not 0 <= place < _PER_CLASS:
                problem = f"expected {prefix}<NNN>.tif with 001 to {_PER_CLASS} here"
                raise layout_error(root, path, problem)
            other = again.pop(path.name, None)
            if other is not None and other != label:
                problem = f"lies in {CLASSES[label]}, its table says {CLASSES[other]}"
                raise layout_error(root, path, problem)
            if listed and other is None:
                notes.warning(relative(root, path), "the table of labels does not list it")
            targets = {"invasive": int(CLASSES[label] == "Invasive"), "histology": label}
            yield image_record(root, path, targets, split_of(label * _PER_CLASS + place))
        for name in again:
            notes.skipped(name, "listed image does not exist")


def _labels(root: Path, table: Path) -> dict[str, int]:
    """Class by file name in the table of labels, if there is one."""
    classes = {spelling(name): index for index, name in enumerate(CLASSES)}
    labels: dict[str, int] = {}
    for row in read_rows(table, ("image", "class")) if has_table(root, table) else ():
        label = classes.get(spelling(row["class"]))
        if label is None or labels.setdefault(row["image"], label) != label:
            problem = f"'{row['class']}', expected one of {', '.join(CLASSES)}, once"
            raise row.error("class", problem)
    return labels


def split_of(position: int) -> str:
    """Split of the image at this place of the sorted list of all 400."""
    return "train" if any(start <= position < stop for start, stop in _TRAIN) else "test"
