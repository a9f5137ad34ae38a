"""TUPAC16 with alternative labels: mitotic figures of breast cancer."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.records import Boxes, Record, Task, TaskKind
from datamodules.formats.annotations import boxes_around
from datamodules.formats.images import image_size, write_image
from datamodules.formats.layout import folder_with, relative, subfolders
from datamodules.reader import DatasetReader
from datamodules.store.tiling import Tiler
from datamodules.synthetic.scene import Stain, scene

CLASSES = ("mitotic figure", "hard negative")
_FOLDERS = ("mitoses_ground_truth", "nonmitoses_ground_truth")
_LABELS = "TUPAC_AL"
_BOX_SIDE = 50  # pixels; the labels are points, MIDOG++ draws boxes of this size around its own
_NUMBER = re.compile(r"\d+")


@dataclass
class TUPAC16Options:
    """Options of `TUPAC16`.

    Attributes:
        empty_share: share of the training tiles without any object that is kept.
    """

    empty_share: float = 0.25


class TUPAC16(DatasetReader):
    """TUPAC16 auxiliary dataset with alternative labels: 73 cases, 656 fields, 0.25 um/px.

    1,999 mitotic figures and 10,483 look-alikes, each a point, here a box of 50x50 px:

        0 mitotic figure    1 hard negative ("nonmitoses")

    Layout; images come from the challenge, labels from a repository:

        TUPAC_AL/mitoses_ground_truth/<case>/<field>.csv       no header, lines "row,column";
        TUPAC_AL/nonmitoses_ground_truth/<case>/<field>.csv    an empty file holds none
        <case>/<field>.tif                                     here or inside the folders
                                                               mitoses_image_data_part_<k>

    Cases 01 to 23 are those of AMIDA13, fields of 2000x2000 px; the others are one large field.
    Split: all is "train"; the challenge's test images have no public labels. Grouping: the case.
    Quirks: the first number is the row (y). Boxes at the border are clipped. The same two
    classes and the same thinning of empty tiles (`empty_share`) as for MIDOG++.
    """

    title = "TUPAC16 mitoses with alternative labels"
    organs = ("breast",)
    licence = "challenge terms; none stated for the labels"
    commercial = None
    citation = (
        "Veta et al.: Predicting breast tumor proliferation from whole-slide images: the TUPAC16 "
        "challenge. Medical Image Analysis 54 (2019). doi:10.1016/j.media.2019.02.012. Labels: "
        "Bertram et al.: Are pathologist-defined labels reproducible? Comparison of the TUPAC16 "
        "mitotic figure dataset with an alternative set of labels. LABELS "
        "workshop, MICCAI 2020"
    )
    homepage = "https://tupac.grand-challenge.org"
    sources = ("TUPAC16", "AMIDA13", "TCGA")
    obtain = (
        "register at https://tupac.grand-challenge.org, unpack the auxiliary mitosis images there "
        "and put the folder TUPAC_AL of "
        "https://github.com/DeepPathology/TUPAC16_AlternativeLabels beside them"
    )
    folder = "tupac16"
    images = 656
    extent = (2_000, 2_000)
    disk_gb = 8
    mpp = 0.25
    tasks = (
        Task("mitosis", TaskKind.DETECTION, CLASSES, positive=CLASSES[0], object_size_um=12.5),
    )
    grouping = "case"
    layout = tuple(f"**/{folder}/*/*.csv" for folder in _FOLDERS)
    options_type = TUPAC16Options

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Fields of 640x640 px, each for four images, three a case; the last holds nothing."""
        fields = max(6, images // 4)
        stains = [Stain.draw(rng) for _ in range(-(-fields // 3))]
        for index in range(fields):
            case, name = f"{index // 3 + 1:02d}", f"{index % 3 + 1:02d}"
            counts = (int(rng.integers(1, 5)), int(rng.integers(1, 6)))
            if index == fields - 1:
                counts = (0, 0)
            drawn = scene(rng, 640, 640, cls.mpp, None, 0.8, *counts, stains[index // 3], "breast")
            part = root / f"mitoses_image_data_part_{1 + (index // 3) % 3}"
            write_image(part / case / f"{name}.tif", drawn.image)
            for folder, points in zip(_FOLDERS, (drawn.mitoses, drawn.lookalikes), strict=True):
                table = root / _LABELS / folder / case / f"{name}.csv"
                table.parent.mkdir(parents=True, exist_ok=True)
                lines = [f"{row},{column}\n" for column, row in points.astype(int).tolist()]
                table.write_text("".join(lines))

    def tiler(self, tasks: tuple[Task, ...]) -> Tiler:
        """Tiles, of which training leaves out most of those without any object."""
        return replace(super().tiler(tasks), empty_share=self.options.empty_share)

    def records(self, root: Path) -> Iterator[Record]:
        """Case by case, field by field."""
        labels = folder_with(root, _FOLDERS[0])
        images = _images(root)
        lists = [_tables(root, labels / folder) for folder in _FOLDERS]
        for key in sorted(lists[0].keys() | lists[1].keys() | images.keys()):
            case, field = key
            for table, folder in zip(lists, _FOLDERS, strict=True):
                if key not in table:
                    raise LayoutError(
                        f"{folder}/{case}/{field}.csv: is missing; a field without objects has "
                        "an empty file"
                    )
            if key not in images:
                raise DatasetNotFoundError(
                    f"{case}/{field}.tif: is annotated, but neither {root} nor a folder in it "
                    "holds this image"
                )
            path = images[key]
            points = [read_points(root, table[key]) for table in lists]
            yield Record(
                source=relative(root, path),
                image=path,
                targets={"mitosis": partial(_boxes, path, points)},
                split="train",
                group=f"case {case}",
            )


def _images(root: Path) -> dict[tuple[str, str], Path]:
    """Field images by case and field.

    [K] The archives' top folders are not re-checked: cases are found in `root` and one deeper.
    """
    found: dict[tuple[str, str], Path] = {}
    cases = [c for top in (root, *subfolders(root)) for c in subfolders(top)]
    for case in (case for case in cases if _NUMBER.fullmatch(case.name)):
        for path in sorted(case.glob("*.tif")):
            key = (case.name, path.stem)
            if key in found:
                raise LayoutError(
                    f"{relative(root, path)}: lies also in {relative(root, found[key])}; keep one"
                )
            found[key] = path
    return found


def _tables(root: Path, folder: Path) -> dict[tuple[str, str], Path]:
    found = {(path.parent.name, path.stem): path for path in sorted(folder.glob("*/*.csv"))}
    if not found:
        raise LayoutError(f"{relative(root, folder)}: holds no <case>/<field>.csv")
    return found


def read_points(root: Path, path: Path) -> NDArray[np.float32]:
    """Points of a label file as x, y, float32 (n, 2); the file has row before column.

    Raises:
        LayoutError: a line is not two numbers.
    """
    points = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(csv.reader(file), start=1):
            try:
                row, column = (float(cell) for cell in line)
            except ValueError as error:
                raise LayoutError(
                    f"{relative(root, path)}, line {number}: '{','.join(line)}', not row,column"
                ) from error
            points.append((column, row))
    return np.array(points, np.float32).reshape(-1, 2)


def _boxes(image: Path, points: list[NDArray[np.float32]]) -> Boxes:
    """Boxes around mitoses, then around look-alikes, clipped to the image."""
    labels = [np.full(len(p), label) for label, p in enumerate(points)]
    return boxes_around(
        np.concatenate(points),
        np.concatenate(labels).astype(np.int64),
        _BOX_SIDE,
        image_size(image),
    )
