"""SICAPv2: Gleason grades of prostate biopsies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.base import PathologyDataModule
from datamodules.errors import LayoutError
from datamodules.layout import relative
from datamodules.pairing import folder_with
from datamodules.records import Record, Task, TaskKind
from datamodules.tiling import View
from datamodules.xlsx import read_xlsx

CLASSES = ("NC", "G3", "G4", "G5", "G4C")


@dataclass
class SICAPv2Options:
    """Options of `SICAPv2`.

    Attributes:
        fold: which of the four published validation folds is held out.
    """

    fold: Literal[1, 2, 3, 4] = 1


class SICAPv2(PathologyDataModule):
    """SICAPv2: patches of 512x512 px at 10x (1 um/px) from 155 slides of 95 patients.

    One task with several labels per patch:

        NC   not cancerous      G3, G4, G5   Gleason pattern      G4C   cribriform pattern

    Layout:

        images/<name>.jpg
        masks/<name>.png                              not read: their codes are not documented
        partition/Test/{Train,Test}.xlsx              columns image_name, NC, G3, G4, G5, G4C
        partition/Validation/Val<k>/{Train,Test}.xlsx    the same for k = 1 to 4

    Split: test as published; train and val are the published validation fold of option `fold`.
    Grouping: the slide, the first part of the image name. Which patient a slide belongs to is
    not in the names.
    Quirk: images that no table lists are passed over.
    """

    title = "SICAPv2 prostate Gleason patches"
    organs = ("prostate",)
    licence = "see the publisher's page"
    commercial = None
    citation = (
        "Silva-Rodriguez et al.: Going deeper through the Gleason scoring scale: an automatic "
        "end-to-end system for histology prostate grading and cribriform pattern detection. "
        "Computer Methods and Programs in Biomedicine 195 (2020). "
        "doi:10.1016/j.cmpb.2020.105637"
    )
    homepage = "https://data.mendeley.com/datasets/9xxm58dvs3"
    sources = ("SICAP",)
    obtain = (
        "get the archive from https://data.mendeley.com/datasets/9xxm58dvs3 and unpack it there, "
        "so that images and partition lie in it"
    )
    folder = "sicapv2"
    mpp = 1.0
    patch_size = 256
    view = View.WHOLE
    grouping = "slide"
    tasks = (Task("gleason", TaskKind.MULTILABEL, CLASSES),)
    layout = ("**/partition/Test/Test.xlsx", "**/images/*.jpg")
    options_type = SICAPv2Options

    def records(self, root: Path) -> Iterator[Record]:
        """The tables of train, val and test, each in its own order."""
        top = folder_with(root, "partition")
        fold = top / f"partition/Validation/Val{self.options.fold}"
        tables = (
            ("train", fold / "Train.xlsx"),
            ("val", fold / "Test.xlsx"),
            ("test", top / "partition/Test/Test.xlsx"),
        )
        for split, table in tables:
            for name, labels in _rows(root, table):
                path = top / "images" / f"{name}.jpg"
                yield Record(
                    source=relative(root, path),
                    image=path,
                    targets={"gleason": labels},
                    split=split,
                    group=name.split("_")[0],
                )


def _rows(root: Path, path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Image name without ending, and its labels."""
    lines = read_xlsx(path)
    header = [cell.strip() for cell in lines[0]] if lines else []
    missing = [name for name in ("image_name", *CLASSES) if name not in header]
    if missing:
        raise LayoutError(
            f"{relative(root, path)}: no column '{missing[0]}'; found {', '.join(header) or 'none'}"
        )
    for number, line in enumerate(lines[1:], start=2):
        row = dict(zip(header, (cell.strip() for cell in line), strict=False))
        if not row.get("image_name"):
            continue
        try:
            labels = np.array([int(float(row[name])) for name in CLASSES], np.uint8)
        except (KeyError, ValueError, OverflowError) as error:
            raise LayoutError(
                f"{relative(root, path)}, line {number}: expected 0 or 1 for {', '.join(CLASSES)}"
            ) from error
        # [K] Whether names carry their ending is not re-checked: both are read.
        yield row["image_name"].removesuffix(".jpg"), labels
