"""OCELOT: cells, and the tissue around them, of six organs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.options import ReaderOptions
from datamodules.core.records import SPLITS, Archive, Boxes, Record, Task, TaskKind
from datamodules.formats.annotations import Codes, boxes_around
from datamodules.formats.images import write_image
from datamodules.formats.json_files import Node, read_json
from datamodules.formats.layout import (
    folder_with,
    image_record,
    list_files,
    list_images,
    paired,
    relative,
)
from datamodules.formats.tables import read_numbers
from datamodules.reader import DatasetReader
from datamodules.store.tiling import Tiler
from datamodules.synthetic.scene import Scene, append_rows, slides
from datamodules.synthetic.tissues import NucleusType, Tissue

_CELL_UM = 8.0  # the labels are points; each gets a box of the size of a nucleus
_CELLS = Task(
    "cells",
    TaskKind.DETECTION,
    ("background cell", "tumor cell"),
    object_size_um=_CELL_UM,
    match_distance_um=3.0,  # the challenge counts a hit within 15 px of 0.2 µm
)
_TISSUE = Task("tissue", TaskKind.SEGMENTATION, ("background", "cancer"))
_MPP = {"cell": 0.2, "tissue": 0.8}
_CODES = Codes({1: 0, 2: 1, 255: 255})


@dataclass
class OCELOTOptions(ReaderOptions):
    """Options of `OCELOT`.

    Attributes:
        part: "cell" for the small fields with cells, "tissue" for the large ones with regions.
    """

    part: Literal["cell", "tissue"] = "cell"


class OCELOT(DatasetReader):
    """OCELOT 2023: pairs of a small field with cells and a large one with tissue around it.

    The option `part` selects the field: cell at about 0.2 µm/px with the task `cells`, or tissue
    at about 0.8 µm/px with the task `tissue`.

    Layout, for train, val and test:

        images/<split>/{cell,tissue}/<NNN>.jpg
        annotations/<split>/cell/<NNN>.csv        no header, lines "x,y,label", 1 or 2
        annotations/<split>/tissue/<NNN>.png      1 background, 2 cancer, 255 unknown (ignored)
        metadata.json                             sample_pairs: slide_name, µm/px and more

    Split: as published. The slide is slide_name of metadata.json.
    Quirks: cells are points, here boxes of 8 µm. Tissue is not enlarged beyond its own µm/px.
    To learn from both, name the dataset twice with the two options and one folder.
    """

    title = "OCELOT 2023"
    organs = ("bladder", "endometrium", "head and neck", "kidney", "prostate", "stomach")
    licence = "CC BY-NC-SA 4.0"
    commercial = False
    citation = (
        "Ryu et al.: OCELOT: Overlapped cell on tissue dataset for histopathology. CVPR 2023. "
        "arXiv 2303.13110"
    )
    homepage = "https://doi.org/10.5281/zenodo.8417503"
    sources = ("TCGA",)
    archives = (
        Archive(
            "https://zenodo.org/records/8417503/files/ocelot2023_v1.0.1.zip",
            # Not published: the checksum that torch_em uses for this file.
            "sha256:74f46b79e3c4076ca0012d403629ab1e1e412591faf79a910d4d8bdd92c47920",
        ),
    )
    images = 663
    download_gb = 0.3
    disk_gb = 0.3
    extent = (1_024, 1_024)
    mpp = 0.2
    grouping = "slide"
    tasks = (_CELLS, _TISSUE)
    layout = ("**/metadata.json", "**/images/train", "**/annotations/train")
    options_type = OCELOTOptions
    published_splits = SPLITS

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Pairs of fields, each for four images; the two of a pair share slide and stain only."""
        organs = ("bladder", "uterus", "head-neck", "kidney", "prostate", "stomach")
        pairs: dict[str, dict[str, Any]] = {}
        fields = slides(rng, max(6, images // 4), organs, cls.mpp, each=2, least=3)
        for index, (number, _, slide) in enumerate(fields):
            name, split = f"{index + 1:03d}", {1: "val", 2: "test"}.get(number % 5, "train")
            case = f"TCGA-{number:02d}-{1000 + number}-01Z-00-DX1"
            pairs[name] = {"slide_name": case, "organ": slide.organ, "subset": split}
            for part, side, mpp in (("tissue", 512, 4 * cls.mpp), ("cell", 768, cls.mpp)):
                drawn = replace(slide, mpp=mpp).field(side, malignancy=(0.5, 1.0))
                write_image(root / "images" / split / part / f"{name}.jpg", drawn.image)
                pairs[name][part] = {"resized_mpp_x": mpp, "resized_mpp_y": mpp}
                labels = root / "annotations" / split / part / name
                if part == "tissue":
                    mask = np.where(drawn.regions == Tissue.TUMOUR, 2, 1).astype(np.uint8)
                    mask[-60:, -60:] = 255
                    write_image(labels.with_suffix(".png"), mask)
                else:
                    append_rows(labels.with_suffix(".csv"), *_points(drawn))
        (root / "metadata.json").write_text(json.dumps({"sample_pairs": pairs}))

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """The one task of the part that is read."""
        return (_CELLS,) if self.options.part == "cell" else (_TISSUE,)

    def tiler(self, tasks: tuple[Task, ...]) -> Tiler:
        """Tiles; tissue keeps its coarser resolution unless another one is asked for."""
        tiler = super().tiler(tasks)
        if self.options.part == "tissue" and self.config.mpp is None:
            return replace(tiler, mpp=0.0)
        return tiler

    def records(self, root: Path) -> Iterator[Record]:
        """Split by split, sorted by number."""
        top, part = folder_with(root, "metadata.json"), self.options.part
        pairs = read_json(root, top / "metadata.json")["sample_pairs"]
        # [K] Early versions came without the test part: the splits that exist are read.
        for split in SPLITS:
            images, labels = top / "images" / split / part, top / "annotations" / split / part
            if not images.is_dir():
                continue
            if not labels.is_dir():
                raise DatasetNotFoundError(f"{labels}: no such folder; its images are there")
            suffix = ".csv" if part == "cell" else ".png"
            expected = f"{relative(root, labels)}/{{}}{suffix}"
            files = list_images(images), list_files(labels, {suffix})
            for path, label in paired(root, *files, expected, self.options.allow_missing):
                entry = pairs.get(path.stem)
                if entry is None:
                    raise pairs.error(f"no entry for {relative(root, path)}")
                slide, mpp = entry["slide_name"].text(), _resolution(entry[part], _MPP[part])
                cells, tissue = partial(_cells, label, path, mpp), partial(_CODES, label)
                targets = {"cells": cells} if part == "cell" else {"tissue": tissue}
                yield image_record(root, path, targets, split, slide, mpp)


def _resolution(entry: Node, about: float) -> float:
    """µm per pixel of a field, which must be of this order and the same along both sides."""
    x, y = (entry[f"resized_mpp_{axis}"].number(about / 2, about * 2) for axis in "xy")
    if abs(x - y) > 0.01 * x:
        raise entry.error(f"resized_mpp_x is {x:g} and resized_mpp_y {y:g}, expected the same")
    return x


def _cells(table: Path, image: Path, mpp: float) -> Boxes:
    """Boxes around the points of a table, clipped to the image."""
    rows = read_numbers(table, ("x", "y", "label"), ("label",))
    return boxes_around(image, rows[:, :2], rows[:, 2].astype(np.int64) - 1, _CELL_UM / mpp)


def _points(drawn: Scene) -> list[list[int]]:
    """Rows of a label file: the middle of each nucleus, and 2 where it is a tumour cell."""
    boxes = drawn.boxes()
    middles = (boxes[:, :2] + boxes[:, 2:]) // 2
    tumour = (drawn.nucleus_types == NucleusType.NEOPLASTIC) + 1
    rows: list[list[int]] = np.column_stack([middles, tumour]).astype(int).tolist()
    return rows
