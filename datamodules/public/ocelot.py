"""OCELOT: cells, and the tissue around them, of six organs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.records import SPLITS, Archive, Boxes, Record, Task, TaskKind
from datamodules.formats.annotations import Codes, boxes_around
from datamodules.formats.images import image_size, list_images, write_image
from datamodules.formats.layout import folder_with, paired, relative
from datamodules.reader import DatasetReader
from datamodules.store.tiling import Tiler
from datamodules.synthetic.scene import NucleusType, Scene, Stain, Tissue, scene

_CELL_UM = 8.0  # the labels are points; a box of about a nucleus is drawn around each
_CELLS = Task(
    "cells",
    TaskKind.DETECTION,
    ("background cell", "tumor cell"),
    object_size_um=_CELL_UM,
    match_distance_um=3.0,  # the challenge counts a hit within 15 px of 0.2 um
)
_TISSUE = Task("tissue", TaskKind.SEGMENTATION, ("background", "cancer"), ignore_index=255)
_CODES = Codes({1: 0, 2: 1, 255: 255})


@dataclass
class OCELOTOptions:
    """Options of `OCELOT`.

    Attributes:
        part: "cell" for the small fields with cells, "tissue" for the large ones with regions.
    """

    part: Literal["cell", "tissue"] = "cell"


class OCELOT(DatasetReader):
    """OCELOT 2023: pairs of a small field with cells and a large one with tissue around it.

    Both fields have 1024x1024 px; the option `part` says which of them is read:

        cell     cells, boxes: 0 background cell, 1 tumor cell      about 0.2 um/px
        tissue   tissue, mask: 0 background, 1 cancer               about 0.8 um/px

    Layout, for train, val and test:

        images/<split>/{cell,tissue}/<NNN>.jpg
        annotations/<split>/cell/<NNN>.csv        no header, lines "x,y,label", 1 or 2
        annotations/<split>/tissue/<NNN>.png      1 background, 2 cancer, 255 unknown (ignored)
        metadata.json                             sample_pairs: slide_name, um/px and more

    Split: as published. Grouping: the slide, slide_name of metadata.json.
    Quirks: cells are points, here boxes of 8 um. Tissue is not enlarged beyond its own um/px.
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
            # Not the publisher's own: the one with which torch_em checks this file.
            "sha256:74f46b79e3c4076ca0012d403629ab1e1e412591faf79a910d4d8bdd92c47920",
        ),
    )
    folder = "ocelot"
    images = 663
    extent = (1_024, 1_024)
    mpp = 0.2
    grouping = "slide"
    tasks = (_CELLS, _TISSUE)
    layout = ("**/metadata.json", "**/images/train", "**/annotations/train")
    options_type = OCELOTOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Pairs of fields, each for four images; the two of a pair share slide and stain only."""
        count, pairs = max(6, images // 4), {}
        stains = [Stain.draw(rng) for _ in range(-(-count // 2))]
        organs = ("bladder", "uterus", "head-neck", "kidney", "prostate", "stomach")
        for index in range(count):
            slide, name, organ = index // 2, f"{index + 1:03d}", organs[index // 2 % len(organs)]
            split = {1: "val", 2: "test"}.get(slide % 5, "train")
            grade = float(rng.uniform(0.5, 1.0))
            tissue, cell = (
                scene(rng, side, side, mpp, None, grade, 0, 0, stains[slide], organ)
                for side, mpp in ((512, 4 * cls.mpp), (768, cls.mpp))
            )
            mask = np.where(tissue.regions == Tissue.TUMOUR.index, 2, 1).astype(np.uint8)
            mask[-60:, -60:] = 255
            labels = root / "annotations" / split
            write_image(labels / "tissue" / f"{name}.png", mask)
            (labels / "cell").mkdir(exist_ok=True)
            (labels / "cell" / f"{name}.csv").write_text(_points(cell))
            for part, drawn in (("tissue", tissue), ("cell", cell)):
                write_image(root / "images" / split / part / f"{name}.jpg", drawn.image)
            pairs[name] = {
                "slide_name": f"TCGA-{slide:02d}-{1000 + slide}-01Z-00-DX1",
                "cell": {"resized_mpp_x": cls.mpp, "resized_mpp_y": cls.mpp},
                "tissue": {"resized_mpp_x": 4 * cls.mpp, "resized_mpp_y": 4 * cls.mpp},
                "organ": organ,
                "subset": split,
            }
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
        pairs = _pairs(root, top / "metadata.json")
        # [K] Early versions came without the test part: the splits that are there are read.
        for split in SPLITS:
            images = top / "images" / split / part
            if not images.is_dir():
                continue
            labels = top / "annotations" / split / part
            if not labels.is_dir():
                raise DatasetNotFoundError(f"{labels}: no such folder; its images are there")
            ending = ".csv" if part == "cell" else ".png"
            files = sorted(labels.glob(f"*{ending}"))
            expected = f"{relative(root, labels)}/{{}}{ending}"
            for path, label in paired(root, list_images(images), files, expected):
                slide, mpp = _entry(root, top, pairs, path, part)
                target = partial(_cells, label, path, mpp) if part == "cell" else None
                yield Record(
                    source=relative(root, path),
                    image=path,
                    targets={"cells": target} if target else {"tissue": partial(_CODES, label)},
                    split=split,
                    group=slide,
                    mpp=mpp,
                )


def _pairs(root: Path, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LayoutError(f"{relative(root, path)}: not readable as JSON ({error})") from error
    pairs = data.get("sample_pairs") if isinstance(data, dict) else None
    if not isinstance(pairs, dict):
        raise LayoutError(f"{relative(root, path)}: no 'sample_pairs', expected one entry per pair")
    return pairs


def _entry(
    root: Path, top: Path, pairs: dict[str, Any], path: Path, part: str
) -> tuple[str, float]:
    """The slide of a field and its um per pixel."""
    where = relative(root, top / "metadata.json")
    try:
        entry = pairs[path.stem]
        return str(entry["slide_name"]), float(entry[part]["resized_mpp_x"])
    except KeyError as error:
        raise LayoutError(f"{where}: no {error} for {relative(root, path)}") from error
    except (TypeError, ValueError) as error:
        raise LayoutError(f"{where}: entry {path.stem} is unreadable ({error})") from error


def _cells(table: Path, image: Path, mpp: float) -> Boxes:
    """Boxes around the points of a table, clipped to the image."""
    points, labels = [], []
    with table.open(newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(csv.reader(file), start=1):
            try:
                x, y, label = (float(cell) for cell in line)
            except ValueError as error:
                raise LayoutError(
                    f"{table}, line {number}: '{','.join(line)}', expected x,y,label"
                ) from error
            points.append((x, y))
            labels.append(int(label) - 1)
    return boxes_around(
        np.array(points, np.float32),
        np.array(labels, np.int64),
        _CELL_UM / mpp,
        image_size(image),
    )


def _points(drawn: Scene) -> str:
    """Lines of a label file: the middle of each nucleus, 2 where it is a tumour cell."""
    boxes = drawn.boxes()
    middles = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int)
    tumour = (drawn.nucleus_types == NucleusType.NEOPLASTIC) + 1
    return "".join(
        f"{x},{y},{label}\n"
        for (x, y), label in zip(middles.tolist(), tumour.tolist(), strict=True)
    )
