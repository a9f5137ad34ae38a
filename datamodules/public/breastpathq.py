"""BreastPathQ: tumour cellularity of breast cancer after neoadjuvant therapy."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import image_record, layout_error, list_images, named
from datamodules.formats.tables import read_table
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import append_rows, slides

_TOP = "breastpathq/datasets"
_TABLES = {"train": "train_labels.csv", "validation": "val_labels.csv"}
_NAME = re.compile(r"\d+_\d+\.tif")


@dataclass
class BreastPathQOptions:
    """Options of `BreastPathQ`.

    Attributes:
        allow_missing: go without labelled images that do not exist; they are counted.
    """

    allow_missing: bool = False


class BreastPathQ(DatasetReader):
    """BreastPathQ (SPIE-AAPM-NCI 2019): the share of a patch that tumour cells take.

    2,394 training patches of 63 slides and 185 validation patches of 6 other slides, scored by
    pathologists in steps of about 0.05.

    Layout:

        breastpathq/datasets/train/<slide>_<rid>.tif         train_labels.csv
        breastpathq/datasets/validation/<slide>_<rid>.tif    val_labels.csv
            both tables: slide,rid,y

    Split: as published, train and val.
    Quirks: train_labels.csv writes the slide as a float (99861.0), val_labels.csv as an
    integer. 670 training patches have cellularity 0. Predicting the training mean (0.312)
    gives a mean squared error of 0.0877 on the validation set. The folder cells is not read.
    """

    title = "BreastPathQ cellularity"
    organs = ("breast",)
    licence = "see TCIA Post-NAT-BRCA (CC BY)"
    citation = (
        "Petrick et al.: SPIE-AAPM-NCI BreastPathQ challenge: an image analysis challenge for "
        "quantitative tumor cellularity assessment in breast cancer histology images following "
        "neoadjuvant treatment. Journal of Medical Imaging 8 (2021). doi:10.1117/1.JMI.8.3.034501"
    )
    homepage = "https://breastpathq.grand-challenge.org"
    sources = ("Post-NAT-BRCA",)
    access = "login"
    obtain = f"register at {homepage} and unpack the data so that breastpathq/datasets lies there"
    images = 2_579
    extent = (512, 512)
    disk_gb = 2
    mpp = 0.5
    view = View.WHOLE
    tasks = (Task("cellularity", TaskKind.REGRESSION, low=0.0, high=1.0),)
    layout = tuple(f"{_TOP}/{table}" for table in _TABLES.values())
    grouping = "slide"
    options_type = BreastPathQOptions
    published_splits = ("train", "val")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Patches of slides, every fifth of them for validation; a quarter hold no tumour."""
        for table in _TABLES.values():
            append_rows(root / _TOP / table, ("slide", "rid", "y"))
        for index, rid, slide in slides(rng, images, ["breast"], cls.mpp, least=5):
            part, end = ("validation", "") if index % 5 == 4 else ("train", ".0")
            grade, name = (0.3, 1.0) if rng.random() < 0.75 else 0.0, 99788 + 3 * index
            drawn = slide.field(512, malignancy=grade, epithelium=(0.05, 1.0))
            write_image(root / _TOP / part / f"{name}_{rid}.tif", drawn.image)
            label = f"{round(drawn.cellularity * 20) / 20:g}"
            append_rows(root / _TOP / _TABLES[part], (f"{name}{end}", rid, label))

    def records(self, root: Path) -> Iterator[Record]:
        """Training, then validation, in the order of the tables."""
        yield from self._part(root, root / _TOP / "train", "train")
        yield from self._part(root, root / _TOP / "validation", "val")

    def _part(self, root: Path, folder: Path, split: str) -> Iterator[Record]:
        table = root / _TOP / _TABLES[folder.name]
        images = {path.name for path in list_images(folder)} if folder.is_dir() else set()
        listed = set()
        for row in read_table(root, table, ("slide", "rid", "y")):
            slide, rid = row.whole("slide", 0), row.whole("rid", 0)
            targets = {"cellularity": row.number("y", 0.0, 1.0)}
            path = folder / f"{slide}_{rid}.tif"
            if path.name in listed:
                raise row.error("rid", f"{path.name} is listed twice")
            listed.add(path.name)
            yield image_record(root, path, targets, split, str(slide))
        for name in sorted(images - listed):
            named(_NAME, root, folder / name, "<slide>_<rid>.tif")
            raise layout_error(root, folder / name, f"{table.name} has no row for it")
