"""GlaS: glands of the colon."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.core import notes
from datamodules.core.records import Archive, Record, Task, TaskKind
from datamodules.formats.annotations import foreground
from datamodules.formats.cells import spelling
from datamodules.formats.images import write_image
from datamodules.formats.layout import image_record, layout_error, list_images, named
from datamodules.formats.tables import read_table
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import append_rows, slides

_TOP = "Warwick QU Dataset (Released 2016_07_08)"
_NAME = re.compile(r"((train|testA|testB)_\d+)(_anno)?\.bmp")


class GlaS(DatasetReader):
    """GlaS, the gland segmentation challenge of MICCAI 2015 (Warwick-QU).

    Benign and malignant glands of 16 patients. Layout:

        Warwick QU Dataset (Released 2016_07_08)/
            train_1.bmp ... train_85.bmp, testA_1.bmp ... testA_60.bmp, testB_1.bmp ... testB_20.bmp
            <name>_anno.bmp      8 bit, 0 background, 1..n the n glands
            Grade.csv            name, patient ID, grades; values with leading spaces

    Split: train as published; testA and testB are "test".
    Quirks: columns of Grade.csv come in two orders in circulating copies; both are read.
    Glands are published as instances; touching ones become one region of gland here.
    """

    title = "GlaS gland segmentation"
    organs = ("colon",)
    licence = "research use with citation"
    commercial = False
    citation = (
        "Sirinukunwattana et al.: Gland segmentation in colon histology images: The GlaS challenge "
        "contest. Medical Image Analysis 35 (2017). doi:10.1016/j.media.2016.08.008"
    )
    homepage = "https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest"
    sources = ("Warwick UHCW colon",)
    archives = (
        Archive(
            # Not published: the checksum that several programs use for this file.
            checksum="md5:495b2a9f3d694545fbec06673fb3f40f",
            name="warwick_qu_dataset_released_2016_07_08.zip",
        ),
    )
    access = "login"
    obtain = f"sign in at {homepage} and get {archives[0].name}"
    images = 165
    extent = (775, 522)
    disk_gb = 0.3
    download_gb = 0.17
    mpp = 0.62
    tasks = (Task("glands", TaskKind.SEGMENTATION, ("background", "gland")),)
    layout = (f"{_TOP}/Grade.csv",)
    split_overlap = (
        "the challenge drew its test images from patients who are also in training: the test score "
        "is that of the challenge, not of new patients"
    )
    published_splits = ("train", "test")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Fields of two official sizes, each for six images; test shares patients with training."""
        columns = ("name", "patient ID", " grade (GlaS)", " grade (Sirinukunwattana et al. 2015)")
        append_rows(root / _TOP / "Grade.csv", columns)
        fields = slides(rng, max(6, images // 6), mpp=cls.mpp, each=2, least=3)
        parts = ("train", "train", "train", "testA", "train", "testB")
        for index, (patient, _, slide) in enumerate(fields):
            name = f"{parts[index % 6]}_{index + 1}"
            word, grade = ((" benign", (0.0, 0.2)), (" malignant", (0.4, 0.8)))[patient % 2]
            drawn = slide.field(*((442, 581) if index % 5 == 4 else (522, 775)), malignancy=grade)
            write_image(root / _TOP / f"{name}.bmp", drawn.image)
            glands = np.where(drawn.glands > 0, (drawn.glands - 1) % 255 + 1, 0).astype(np.uint8)
            write_image(root / _TOP / f"{name}_anno.bmp", glands)
            append_rows(root / _TOP / "Grade.csv", (name, f" {patient + 1}", word, word))

    def records(self, root: Path) -> Iterator[Record]:
        """Sorted by file name: testA, testB, train."""
        top = root / _TOP
        table = read_table(root, top / "Grade.csv", ("name", "patient ID"))
        patients: dict[str, str] = {}
        for row in table:
            if row["name"] in patients:
                raise row.error("name", f"{row['name']} is listed twice")
            patients[row["name"]] = spelling(row["patient ID"])
        files = {
            path.name: named(_NAME, root, path, "train_, testA_ or testB_<number>[_anno].bmp")
            for path in list_images(top)
        }
        for name in sorted(patients):
            if f"{name}.bmp" not in files:
                notes.skipped(f"{name}.bmp", "listed image does not exist")
        for name, match in files.items():
            stem, path = match[1], top / name
            partner = f"{stem}.bmp" if match[3] else f"{stem}_anno.bmp"
            if partner not in files:
                raise layout_error(root, path, f"its partner {partner} is missing")
            if match[3]:
                continue
            if stem not in patients:
                raise layout_error(root, path, f"Grade.csv has no row for {stem}")
            targets = {"glands": partial(foreground, top / partner)}
            split = "train" if match[2] == "train" else "test"
            yield image_record(root, path, targets, split, f"patient {patients[stem]}")
