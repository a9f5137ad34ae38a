"""SICAPv2: Gleason grades of prostate biopsies."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.core import notes
from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.options import ReaderOptions
from datamodules.core.records import SPLITS, Archive, Mask, Record, Targets, Task, TaskKind
from datamodules.formats.annotations import Codes
from datamodules.formats.images import write_image
from datamodules.formats.layout import folder_with, image_record, note_unlisted
from datamodules.formats.row import Row
from datamodules.formats.tables import read_table
from datamodules.formats.xlsx import write_xlsx
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import slides

CLASSES = ("NC", "G3", "G4", "G5", "G4C")
REGIONS = ("non-cancerous", "G3", "G4", "G5")
# [K] The codes are those that users of the second release read; any other one is an error.
_CODES = Codes({0: 0, 3: 1, 4: 2, 5: 3})

# Malignancy of synthetic tissue by class: the more glands fuse, the more cribriform they are.
_GRADES = ((0.0, 0.1), (0.3, 0.42), (0.5, 0.6), (0.87, 1.0), (0.68, 0.8))
_FOLDS = (1, 2, 3, 4)


@dataclass
class SICAPv2Options(ReaderOptions):
    """Options of `SICAPv2`.

    Attributes:
        fold: which of the four published validation folds is held out.
        masks: read the outlined regions as well as the labels.
    """

    fold: Literal[1, 2, 3, 4] = 1
    masks: bool = True


class SICAPv2(DatasetReader):
    """SICAPv2: patches at 10x from 155 slides of 95 patients.

    A patch has several labels: NC not cancerous, G3, G4, G5 Gleason pattern, G4C cribriform
    pattern. Region 0 is also where there is no tissue.

    Layout:

        images/<name>.jpg
        masks/<name>.png                              8 bit; 0 non-cancerous, 3, 4, 5 the pattern
        partition/Test/{Train,Test}.xlsx              columns image_name, NC, G3, G4, G5, G4C
        partition/Validation/Val<k>/{Train,Test}.xlsx    the same for k = 1 to 4

    Split: test as published; train and val are the published validation fold of option `fold`.
    Grouping: the slide is the first part of the image name; names do not identify the patient.
    Quirks: images that no table lists are skipped. The first release had its masks as JPEG,
    which blurs codes: take the second, or the labels alone with `masks: false`.
    """

    title = "SICAPv2 prostate Gleason patches"
    organs = ("prostate",)
    licence = "CC BY 4.0"
    commercial = True
    citation = (
        "Silva-Rodriguez et al.: Going deeper through the Gleason scoring scale: an automatic "
        "end-to-end system for histology prostate grading and cribriform pattern detection. "
        "Computer Methods and Programs in Biomedicine 195 (2020). "
        "doi:10.1016/j.cmpb.2020.105637"
    )
    homepage = "https://data.mendeley.com/datasets/9xxm58dvs3"
    sources = ("SICAP",)
    archives = (
        Archive(
            "https://data.mendeley.com/public-files/datasets/9xxm58dvs3/files/"
            "6ab087a7-ca89-47ac-9698-f6546bb50f98/file_downloaded",
            "sha256:a28aa6a0e3831217bf31575cecfc1846607ace7ff25a4392f07052bbc7355916",
            2_159_052_394,
            name="SICAPv2.zip",
        ),
    )
    obtain = f"get SICAPv2.zip of the second version from {homepage}/2"
    images = 12_081
    extent = (512, 512)
    disk_gb = 2.2
    mpp = 1.0
    view = View.WHOLE
    grouping = "slide"
    tasks = (
        Task("gleason", TaskKind.MULTILABEL, CLASSES),
        Task("regions", TaskKind.SEGMENTATION, REGIONS),
    )
    layout = ("**/partition/Test/Test.xlsx", "**/images/*.jpg")
    options_type = SICAPv2Options
    published_splits = SPLITS

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Patches of 512x512 px of slides; every sixth slide is for the test."""
        rows: dict[int, list[list[str | int]]] = {}
        for index, number, slide in slides(rng, images, ["prostate"], cls.mpp, each=6, least=6):
            label = (index + number) % len(CLASSES)
            drawn = slide.field(512, malignancy=_GRADES[label], epithelium=(0.4, 0.9))
            file = f"16B{index:07d}_Block_Region_1_{number}_0_xini_{512 * number}_yini_0"
            write_image(root / "images" / f"{file}.jpg", drawn.image)
            mask = np.where(drawn.glands > 0, (0, 3, 4, 5, 4)[label], 0).astype(np.uint8)
            write_image(root / "masks" / f"{file}.png", mask)
            flags = [int(CLASSES[label].startswith(name)) for name in CLASSES]  # G4C is G4 as well
            fold = 0 if index % 6 == 5 else _FOLDS[index % len(_FOLDS)]
            rows.setdefault(fold, []).append([f"{file}.jpg", *flags])
        _tables(root / "partition", rows)

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """Labels and regions, or labels alone where the option asks for it."""
        return self.tasks if self.options.masks else self.tasks[:1]

    def records(self, root: Path) -> Iterator[Record]:
        """The tables of train, val and test, each in its own order."""
        top = folder_with(root, "partition")
        fold = f"Validation/Val{self.options.fold}"
        tables = {"train": f"{fold}/Train", "val": f"{fold}/Test", "test": "Test/Test"}
        listed = set()
        for split, name in tables.items():
            table = top / "partition" / f"{name}.xlsx"
            for row in read_table(root, table, ("image_name", *CLASSES)):
                record = _record(root, top, row, split)
                listed.add(record.source.rpartition("/")[2])
                yield record
        note_unlisted(root, top / "images", listed, "partition/")


def _record(root: Path, top: Path, row: Row, split: str) -> Record:
    # [K] Whether names carry their suffix is not verified: both forms are read.
    name = row.file("image_name").removesuffix(".jpg")
    labels = np.array([row.whole(column, 0, 1) for column in CLASSES], np.uint8)
    if not labels.any():
        notes.warning(name, "patch with no label")
    image, mask = top / "images" / f"{name}.jpg", top / "masks" / f"{name}.png"
    targets: Targets = {"gleason": labels, "regions": partial(_regions, mask)}
    return image_record(root, image, targets, split, name.split("_")[0])


def _regions(path: Path) -> Mask:
    """Non-cancerous tissue and the three patterns."""
    if not path.is_file():
        remedy = "take the second release, whose masks are PNG, or set options.masks=false"
        raise DatasetNotFoundError(f"{path}: no such mask; {remedy} to read the labels alone")
    return _CODES(path)


def _tables(folder: Path, lines: dict[int, list[list[str | int]]]) -> None:
    """Write the tables of the four folds and of the test, which has number 0."""
    held_out = {"Test": 0, **{f"Validation/Val{fold}": fold for fold in _FOLDS}}
    for part, number in held_out.items():
        (folder / part).mkdir(parents=True)
        train = [row for fold, rows in lines.items() if fold not in (0, number) for row in rows]
        for name, rows in (("Train", train), ("Test", lines.get(number, []))):
            write_xlsx(folder / part / f"{name}.xlsx", [["image_name", *CLASSES], *rows])
