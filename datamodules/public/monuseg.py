"""MoNuSeg 2018: nuclei of several organs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import LayoutError
from datamodules.core.records import Boxes, Mask, Record, Targets
from datamodules.formats.annotations import fill_polygon, nucleus_tasks
from datamodules.formats.images import image_size, write_image
from datamodules.formats.layout import image_record, layout_error, list_files, paired, relative
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import Scene, append_rows, slides

_TRAIN = "MoNuSeg 2018 Training Data"
_TEST = "MoNuSegTestData"
_MPP = re.compile(rb'MicronsPerPixel="([0-9.]+)"')


class MoNuSeg(DatasetReader):
    """MoNuSeg 2018, the multi-organ nucleus segmentation challenge.

    37 training and 14 test fields from TCGA slides of seven organs; lung and brain occur in the
    test set only.

    Layout:

        MoNuSeg 2018 Training Data/Tissue Images/<id>.tif
        MoNuSeg 2018 Training Data/Annotations/<id>.xml      Aperio ImageScope, one Region a nucleus
        MoNuSegTestData/<id>.tif, <id>.xml                   a separate download

    Split: as published, train and test. The patient is the first 12 characters of <id>.
    Quirks: µm/px stands in each XML and differs a little; vertices lie up to 3 px outside the
    image and are clipped; outlines may overlap. A pixel is nucleus if its centre lies within an
    outline. Touching nuclei become one region of the mask, the boxes keep them apart.
    Shares slides of TCGA with PanNuke, BCSS, MoNuSAC, TUPAC16 and others.
    """

    title = "MoNuSeg 2018 multi-organ nucleus segmentation"
    organs = ("breast", "kidney", "liver", "prostate", "bladder", "colon", "stomach")
    licence = "CC BY-NC-SA 4.0"
    commercial = False
    citation = (
        "Kumar et al.: A Dataset and a Technique for Generalized Nuclear Segmentation for "
        "Computational Pathology. IEEE TMI 36 (2017). doi:10.1109/TMI.2017.2677499"
    )
    homepage = "https://monuseg.grand-challenge.org"
    sources = ("TCGA",)
    obtain = f"get training and test data from {homepage}/Data and unpack both archives there"
    images = 51
    extent = (1_000, 1_000)
    disk_gb = 0.2
    mpp = 0.25
    tasks = nucleus_tasks(("nucleus",))
    layout = (f"{_TRAIN}/Tissue Images", f"{_TRAIN}/Annotations")
    published_splits = ("train", "test")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Fields of 1000x1000 px; a field counts as six images, being cut into many tiles."""
        for index, _, slide in slides(rng, images // 6, cls.organs, 0.2468, each=1):
            drawn = slide.field(1000, malignancy=(0.0, 1.0))
            name = f"TCGA-{'ABCEGH'[index % 6]}{index % 10}-{1000 + index}-01Z-00-DX1"
            folders = (f"{_TRAIN}/Tissue Images", f"{_TRAIN}/Annotations")
            pictures, outlines = (_TEST, _TEST) if index % 4 == 3 else folders
            write_image(root / pictures / f"{name}.tif", drawn.image)
            append_rows(root / outlines / f"{name}.xml", [_aperio(drawn, slide.mpp)])

    def records(self, root: Path) -> Iterator[Record]:
        """Training images, then test images, sorted by id."""
        parts = [("train", root / _TRAIN / "Tissue Images", root / _TRAIN / "Annotations")]
        if (root / _TEST).is_dir():
            parts.append(("test", root / _TEST, root / _TEST))
        for split, images, outlined in parts:
            expected = f"{relative(root, outlined)}/{{}}.xml"
            pictures, files = list_files(images, {".tif"}), list_files(outlined, {".xml"})
            for path, xml in paired(root, pictures, files, expected):
                targets: Targets = {
                    "nuclei": partial(nuclei_mask, xml, path),
                    "nuclei_detection": partial(nuclei_boxes, xml, path),
                }
                mpp = _microns(root, xml)
                yield image_record(root, path, targets, split, path.stem[:12], mpp)


def _microns(root: Path, xml: Path) -> float:
    """µm per pixel from the head of the file; the rest is parsed when targets are needed."""
    with xml.open("rb") as file:
        match = _MPP.search(file.read(1024))
    if match is None:
        raise layout_error(root, xml, "no MicronsPerPixel at its beginning")
    return float(match[1])


def outlines(xml: Path) -> list[NDArray[np.float64]]:
    """Outlines of an Aperio XML in the order of the file, each (n, 2) x and y in pixels.

    Raises:
        LayoutError: not well-formed, or a region without three vertices.
    """
    try:
        tree = ElementTree.parse(xml)
    except ElementTree.ParseError as error:
        raise LayoutError(f"{xml}: not a readable XML file ({error})") from error
    polygons = []
    for region in tree.iter("Region"):
        vertices = [
            (float(vertex.get("X", "nan")), float(vertex.get("Y", "nan")))
            for vertex in region.iterfind("Vertices/Vertex")
        ]
        polygon = np.array(vertices, np.float64).reshape(-1, 2)
        if len(polygon) < 3 or not np.isfinite(polygon).all():
            raise LayoutError(
                f"{xml}: Region {region.get('Id')} has no three vertices with X and Y"
            )
        polygons.append(polygon)
    return polygons


def nuclei_mask(xml: Path, image: Path) -> Mask:
    """Background and nucleus, uint8, of the image's size."""
    mask = np.zeros(image_size(image), np.uint8)
    for outline in outlines(xml):
        fill_polygon(mask, outline, 1)
    return mask


def nuclei_boxes(xml: Path, image: Path) -> Boxes:
    """A box around every outline, clipped to the image; those entirely outside are dropped."""
    height, width = image_size(image)
    corners = [np.concatenate([line.min(axis=0), line.max(axis=0)]) for line in outlines(xml)]
    xyxy = np.array(corners, np.float32).reshape(-1, 4).clip(0, [width, height] * 2)
    inside = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    return Boxes(xyxy[inside].astype(np.float32), np.zeros(int(inside.sum()), np.int64))


def _aperio(drawn: Scene, mpp: float) -> str:
    """Aperio XML of nuclei; like the real ones, those at the border reach out of the image."""
    regions = []
    for number, (x1, y1, x2, y2) in enumerate(drawn.boxes().astype(int).tolist(), start=1):
        mask = (drawn.nuclei[y1:y2, x1:x2] == number).astype(np.uint8)
        # Of four subpixels each, so that the outline runs around the pixels' centres.
        fine = mask.repeat(2, axis=0).repeat(2, axis=1)
        pieces, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        outline = max(pieces, key=len).reshape(-1, 2) / 2 + np.array([x1, y1])
        vertices = np.where(outline == 0, -2.0, outline + 0.25).tolist()
        text = "".join(f'<Vertex X="{x:.6f}" Y="{y:.6f}"/>' for x, y in vertices)
        regions.append(f'<Region Id="{number}"><Vertices>{text}</Vertices></Region>')
    return (
        f'<Annotations MicronsPerPixel="{mpp:.6f}">\n<Annotation Id="1" Name="">\n'
        f"<Regions>\n{chr(10).join(regions)}\n</Regions>\n</Annotation>\n</Annotations>"
    )
