"""CRCHistoPhenotypes: nuclei of the colon as points with four classes."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core import notes
from datamodules.core.errors import LayoutError
from datamodules.core.records import Boxes, Record, Task, TaskKind
from datamodules.formats.annotations import boxes_around
from datamodules.formats.images import write_image
from datamodules.formats.layout import folder_with, image_record, layout_error, subfolders
from datamodules.formats.matlab import read_mat, write_mat
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import slides

CLASSES = ("epithelial", "fibroblast", "inflammatory", "others")
_TOP = "Classification"
_NUCLEUS_UM = 8.0  # the labels are points; each gets a box of the size of a nucleus
_CLASS_OF_TYPE = np.array([0, 2, 1, 3, 0])  # of synthetic nuclei


class CRCHisto(DatasetReader):
    """CRCHistoPhenotypes: 100 fields of colorectal adenocarcinoma with 22,444 classified nuclei.

    Layout, for N from 1 to 100:

        CRCHistoPhenotypes_2016_04_28/Classification/imgN/imgN.bmp     500x500 px
        .../Classification/imgN/imgN_{epithelial,fibroblast,inflammatory,others}.mat
                                        `detection`, (n, 2), x and y from 1
        .../Detection/imgN/...          more nuclei without class, not read

    Split: none is published.
    Grouping: the nine patients are not named; fields of one can lie on both sides of a split.
    Quirks: the labels are points, here boxes of 8 µm; about a quarter of the nuclei have no class
    and so no box. Places that are no number are left out.
    """

    # [V] Folders, names, key and order of the columns: many programs that read it, such as the
    # multiple-instance learning code of AMLab; of these some test for NaN. [K] 0.55 µm/px.
    title = "CRCHistoPhenotypes colorectal nuclei"
    organs = ("colon",)
    licence = "research use with citation"
    citation = (
        "Sirinukunwattana et al.: Locality sensitive deep learning for detection and "
        "classification of nuclei in routine colon cancer histology images. IEEE TMI 35 (2016). "
        "doi:10.1109/TMI.2016.2525803"
    )
    homepage = "https://warwick.ac.uk/fac/cross_fac/tia/data/crchistolabelednucleihe"
    sources = ("Warwick UHCW colon",)
    access = "login"
    obtain = f"sign in at {homepage} and get CRCHistoPhenotypes_2016_04_28.zip"
    images = 100
    extent = (500, 500)
    disk_gb = 0.1
    mpp = 0.55
    grouping = "image"
    tasks = (
        Task(
            *("nuclei_detection", TaskKind.DETECTION, CLASSES),
            object_size_um=_NUCLEUS_UM,
            match_distance_um=3.0,
        ),
    )
    layout = (f"**/{_TOP}/*/*.bmp", f"**/{_TOP}/*/*.mat")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Fields of 500x500 px, each for four images; the first has a class without nucleus."""
        for index, _, slide in slides(rng, images // 4, mpp=cls.mpp, each=1, least=4):
            drawn = slide.field(500, malignancy=(0.3, 1.0))
            boxes, name = drawn.boxes(), f"img{index + 1}"
            middles = (boxes[:, :2] + boxes[:, 2:]).astype(np.float64) / 2 + 0.5
            folder = root / "CRCHistoPhenotypes_2016_04_28" / _TOP / name
            write_image(folder / f"{name}.bmp", drawn.image)
            for number, kind in enumerate(CLASSES):
                chosen = (_CLASS_OF_TYPE[drawn.nucleus_types] == number) & (index + number != 3)
                points = middles[chosen] if chosen.any() else np.zeros((0, 0))
                write_mat(folder / f"{name}_{kind}.mat", {"detection": points})

    def records(self, root: Path) -> Iterator[Record]:
        """Sorted by number."""
        top = folder_with(root, _TOP) / _TOP
        folders = subfolders(top)
        for folder in folders:
            if not re.fullmatch(r"img\d+", folder.name):
                raise layout_error(root, folder, "unexpected name; expected img<number>")
        for folder in sorted(folders, key=lambda one: int(one.name[3:])):
            path = folder / f"{folder.name}.bmp"
            mats = [folder / f"{folder.name}_{kind}.mat" for kind in CLASSES]
            targets = {"nuclei_detection": partial(boxes_of, path, mats, _NUCLEUS_UM / self.mpp)}
            yield image_record(root, path, targets)


def boxes_of(image: Path, mats: list[Path], side: float) -> Boxes:
    """Boxes around the points of the four files, clipped to the image."""
    parts = [_points(mat) for mat in mats]
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    points = np.concatenate(parts)
    _, first = np.unique(points, axis=0, return_index=True)
    for _ in range(len(points) - len(first)):
        notes.skipped(image.name, "the same point twice; its first class counts")
    kept = np.sort(first)
    return boxes_around(image, points[kept], labels[kept], side)


def _points(mat: Path) -> NDArray[Any]:
    """x and y of the points of one file, (n, 2), in pixels from the image's edge."""
    (points,) = read_mat(mat, "detection")
    if not points.size:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise LayoutError(f"{mat}: detection has shape {points.shape}, expected (n, 2)")
    known = np.isfinite(points).all(axis=1)
    for _ in range(int((~known).sum())):
        notes.skipped(mat.name, "point without place")
    # MATLAB counts pixels from 1: the middle of the first is 1, here 0.5.
    return np.asarray(points[known] - 0.5, np.float64)
