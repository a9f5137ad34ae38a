"""CRAG: glands of the colon in large fields."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.images import read_foreground, write_image
from datamodules.formats.layout import folder_with, image_record, list_images, paired
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import slides

_SPLITS = {"train": "train", "valid": "test", "test": "test"}
_LABELS = ("Annotation", "Annotations")


class CRAG(DatasetReader):
    """CRAG: colorectal adenocarcinoma glands, 213 fields of about 1500x1500 px at 20x.

    Layout:

        CRAG/train/Images/train_<n>.png         173 fields
        CRAG/train/Annotation/train_<n>.png     0 background, 1..n the n glands
        CRAG/valid/Images, CRAG/valid/Annotation    40 fields; the folder is also called test
        CRAG/*/Overlay                          not needed

    Split: as published; the 40 fields, on which its authors report results, are the test.
    Grouping: patients are not named, so one may lie on both sides.
    Quirks: copies circulate with the folder Annotations; version 1 of the archive has five masks
    without image (allow_missing goes without). Glands are published as instances; touching ones
    become one region here. Same hospital as GlaS and CoNSeP; Lizard contains fields of CRAG.
    """

    # [V] Numbers, version 1, both spellings of the folders: XiaoyuZHK/CRAG-Dataset_Aug_ToCOCO,
    # README.md and code. [K] 0.55 µm/px and whether masks are grey: any colour but black counts.
    title = "CRAG colorectal gland segmentation"
    organs = ("colon",)
    licence = "research use with citation"
    commercial = False
    citation = (
        "Graham et al.: MILD-Net: Minimal information loss dilated network for gland instance "
        "segmentation in colon histology images. Medical Image Analysis 52 (2019). "
        "doi:10.1016/j.media.2018.12.001"
    )
    homepage = "https://warwick.ac.uk/fac/cross_fac/tia/data/mildnet"
    sources = ("Warwick UHCW colon",)
    access = "login"
    obtain = f"sign in at {homepage} and get CRAG_v2.zip"
    images = 213
    extent = (1_512, 1_516)
    disk_gb = 1.2
    mpp = 0.55
    grouping = "image"
    tasks = (Task("glands", TaskKind.SEGMENTATION, ("background", "gland")),)
    layout = ("**/train/Images/*.png", "**/train/Annotation*/*.png")
    published_splits = ("train", "test")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Fields of 500x520 px, each for four images; every third is for the test."""
        for index, _, slide in slides(rng, images // 4, mpp=cls.mpp, each=1, least=4):
            drawn = slide.field(500, 520, malignancy=(0.2, 0.8), epithelium=(0.3, 0.6))
            part, name = ("valid", "test") if index % 3 == 2 else ("train", "train")
            folder, file = root / "CRAG" / part, f"{name}_{index + 1}.png"
            write_image(folder / "Images" / file, drawn.image)
            glands = np.where(drawn.glands > 0, (drawn.glands - 1) % 255 + 1, 0).astype(np.uint8)
            write_image(folder / "Annotation" / file, glands)

    def records(self, root: Path) -> Iterator[Record]:
        """Training fields, then test fields, sorted by name."""
        top, missing = folder_with(root, "train/Images"), self.options.allow_missing
        for part, split in _SPLITS.items():
            folder = top / part
            if not folder.is_dir():
                continue
            labels = next((folder / name for name in _LABELS if (folder / name).is_dir()), None)
            if labels is None:
                raise DatasetNotFoundError(
                    f"{folder}: no folder {_LABELS[0]}, its images are there"
                )
            files = list_images(folder / "Images"), list_images(labels)
            for path, mask in paired(root, *files, f"{part}/{labels.name}/{{}}.png", missing):
                yield image_record(root, path, {"glands": partial(read_foreground, mask)}, split)
