"""TUPAC16 with alternative labels: mitotic figures of breast cancer."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import LayoutError
from datamodules.core.records import Record
from datamodules.formats.annotations import MITOSIS, RareObjectOptions, boxes_around
from datamodules.formats.images import write_image
from datamodules.formats.layout import (
    folder_with,
    image_record,
    layout_error,
    list_files,
    relative,
    subfolders,
)
from datamodules.formats.tables import read_numbers
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import append_rows, slides

_FOLDERS = ("mitoses_ground_truth", "nonmitoses_ground_truth")
_LABELS = "TUPAC_AL"
_BOX_SIDE = 50  # pixels; the labels are points, MIDOG++ draws boxes of this size around its own


class TUPAC16(DatasetReader):
    """TUPAC16 auxiliary dataset with alternative labels: 73 cases.

    1,999 mitotic figures and 10,483 look-alikes ("nonmitoses"), each a point, here a box of
    50x50 px.

    Layout; images come from the challenge, labels from a repository:

        TUPAC_AL/mitoses_ground_truth/<case>/<field>.csv       no header, lines "row,column";
        TUPAC_AL/nonmitoses_ground_truth/<case>/<field>.csv    an empty file holds none
        <case>/<field>.tif                                     here or inside the folders
                                                               mitoses_image_data_part_<k>

    Cases 01 to 23 are those of AMIDA13, fields of 2000x2000 px; the others are one large field.
    Split: all is "train"; the challenge's test images have no public labels.
    Quirks: the first number is the row (y). Boxes at the border are clipped. Empty tiles are
    thinned (`empty_share`) as for MIDOG++.
    """

    title = "TUPAC16 mitoses with alternative labels"
    organs = ("breast",)
    licence = "challenge terms; none stated for the labels"
    citation = (
        "Veta et al.: Predicting breast tumor proliferation from whole-slide images: the TUPAC16 "
        "challenge. Medical Image Analysis 54 (2019). doi:10.1016/j.media.2019.02.012. Labels: "
        "Bertram et al.: Are pathologist-defined labels reproducible? Comparison of the TUPAC16 "
        "mitotic figure dataset with an alternative set of labels. LABELS workshop, MICCAI 2020"
    )
    homepage = "https://tupac.grand-challenge.org"
    sources = ("TUPAC16", "AMIDA13", "TCGA")
    access = "login"
    obtain = (
        f"register at {homepage}, unpack the auxiliary mitosis images there and put the folder "
        f"{_LABELS} of https://github.com/DeepPathology/TUPAC16_AlternativeLabels beside them"
    )
    images = 656
    extent = (2_000, 2_000)
    disk_gb = 8
    mpp = 0.25
    tasks = (MITOSIS,)
    grouping = "case"
    layout = tuple(f"**/{folder}/*/*.csv" for folder in _FOLDERS)
    options_type = RareObjectOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Fields of 640x640 px, each for four images, three a case; the last holds nothing."""
        fields = list(slides(rng, max(6, images // 4), ["breast"], cls.mpp, each=3, least=2))
        for case, number, slide in fields:
            counts = rng.integers(1, (5, 6)) * ((case, number) != fields[-1][:2])
            drawn = slide.field(640, malignancy=0.8, mitoses=counts[0], lookalikes=counts[1])
            name = f"{case + 1:02d}/{number + 1:02d}"
            part = root / f"mitoses_image_data_part_{1 + case % 3}"
            write_image(part / f"{name}.tif", drawn.image)
            for folder, points in zip(_FOLDERS, (drawn.mitoses, drawn.lookalikes), strict=True):
                rows = points[:, ::-1].astype(int).tolist()
                append_rows(root / _LABELS / folder / f"{name}.csv", *rows)

    def records(self, root: Path) -> Iterator[Record]:
        """Case by case, field by field."""
        labels = folder_with(root, _FOLDERS[0])
        tables = {
            folder: _by_field(root, subfolders(labels / folder), ".csv") for folder in _FOLDERS
        }
        # [K] The archives' top folders are not verified: cases are read in `root` and one deeper.
        cases = [case for top in (root, *subfolders(root)) for case in subfolders(top)]
        numbered = [case for case in cases if re.fullmatch(r"\d+", case.name)]
        images = _by_field(root, numbered, ".tif")
        for field in sorted(images.keys() | {name for table in tables.values() for name in table}):
            for folder, table in tables.items():
                if field not in table:
                    problem = "is missing; a field without objects has an empty file"
                    raise LayoutError(f"{folder}/{'/'.join(field)}.csv: {problem}")
            path = images.get(field, root / field[0] / f"{field[1]}.tif")
            points = [read_points(table[field]) for table in tables.values()]
            classes = np.repeat(np.arange(len(points)), [len(part) for part in points])
            boxes = partial(boxes_around, path, np.concatenate(points), classes, _BOX_SIDE)
            yield image_record(root, path, {"mitosis": boxes}, group=f"case {field[0]}")


def _by_field(root: Path, cases: list[Path], suffix: str) -> dict[tuple[str, str], Path]:
    """Files by case, the name of their folder, and field, their stem."""
    by_field: dict[tuple[str, str], Path] = {}
    for path in sorted(path for case in cases for path in list_files(case, {suffix})):
        other = by_field.setdefault((path.parent.name, path.stem), path)
        if other != path:
            raise layout_error(root, path, f"lies also in {relative(root, other)}; keep one")
    return by_field


def read_points(path: Path) -> NDArray[np.float64]:
    """Points of a label file as x and y, float64 (n, 2); the file has the row first."""
    return read_numbers(path, ("row", "column"))[:, ::-1]
