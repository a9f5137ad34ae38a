"""MHIST: colorectal polyps, hyperplastic or serrated."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datamodules.core import notes
from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import folder_with, image_record, note_unlisted
from datamodules.formats.tables import read_table
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import append_rows, slides

CLASSES = ("HP", "SSA")
_NAME, _LABEL, _PART = "Image Name", "Majority Vote Label", "Partition"
_VOTES = "Number of Annotators who Selected SSA (Out of 7)"
_GRADES = ((0.0, 0.15), (0.35, 0.6))  # malignancy of synthetic tissue by class


class MHIST(DatasetReader):
    """MHIST: 3,152 images of colorectal polyps, each labelled by seven pathologists.

    HP is a hyperplastic polyp, SSA a sessile serrated adenoma, by the majority of the votes.

    Layout:

        images/MHIST_<three letters>.png    224x224 px
        annotations.csv                     Image Name, Majority Vote Label, Number of Annotators
                                            who Selected SSA (Out of 7), Partition (train, test)

    Split: as published, 2,175 and 977.
    Grouping: patients are not named, so one may lie on both sides.
    Quirk: the archives hold the images without a folder of their own in some copies: unpack
    images.zip into images/. A label that its votes contradict is counted.
    """

    # [V] Names, columns and numbers: kaiko-ai/eva, mhist.py, and several programs that read
    # annotations.csv. The publisher states no µm/px.
    title = "MHIST colorectal polyps"
    organs = ("colon",)
    licence = "MHIST dataset research use agreement"
    commercial = False
    citation = (
        "Wei et al.: A petri dish for histopathology image analysis. AIME 2021. "
        "doi:10.1007/978-3-030-77211-6_2"
    )
    homepage = "https://bmirds.github.io/MHIST"
    sources = ("Dartmouth-Hitchcock colorectal polyps",)
    access = "form"
    download_gb = 0.35
    obtain = (
        f"fill in the form at {homepage}; links to images.zip and annotations.csv come by e-mail; "
        "put annotations.csv there and unpack images.zip there"
    )
    images = 3_152
    extent = (224, 224)
    disk_gb = 0.4
    patch_size = 224
    view = View.WHOLE
    grouping = "image"
    tasks = (Task("polyp", TaskKind.CLASSIFICATION, CLASSES, positive="SSA"),)
    layout = ("**/annotations.csv", "**/images/*.png")
    published_splits = ("train", "test")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Both classes in both parts, with the votes; every third image is for the test."""
        append_rows(root / "annotations.csv", (_NAME, _LABEL, _VOTES, _PART))
        for index, number, slide in slides(rng, max(12, images), mpp=0.6, each=2, least=6):
            label = number % 2
            drawn = slide.field(224, malignancy=_GRADES[label], epithelium=(0.3, 0.6))
            name = f"MHIST_a{chr(97 + index % 26)}{chr(97 + number % 26)}.png"
            write_image(root / "images" / name, drawn.image)
            votes = rng.integers(4, 8) if label else rng.integers(0, 4)
            row = (name, CLASSES[label], votes, "test" if index % 3 == 2 else "train")
            append_rows(root / "annotations.csv", row)

    def records(self, root: Path) -> Iterator[Record]:
        """In the order of the table."""
        top = folder_with(root, "annotations.csv")
        listed = set()
        for row in read_table(root, top / "annotations.csv", (_NAME, _LABEL, _PART), (_VOTES,)):
            if row[_LABEL] not in CLASSES:
                raise row.error(_LABEL, f"'{row[_LABEL]}', expected {' or '.join(CLASSES)}")
            if row[_PART] not in self.published_splits:
                raise row.error(_PART, f"'{row[_PART]}', expected train or test")
            label = CLASSES.index(row[_LABEL])
            if _VOTES in row and (row.whole(_VOTES, 0, 7) > 3) != bool(label):
                notes.warning(row.where, "label that its votes contradict")
            path = top / "images" / row.file(_NAME)
            listed.add(path.name)
            yield image_record(root, path, {"polyp": label}, row[_PART])
        note_unlisted(root, top / "images", listed, "annotations.csv")
