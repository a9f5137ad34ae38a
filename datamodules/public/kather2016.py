"""Kather-texture-2016: tissue of colorectal cancer."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datamodules.core.records import Archive, Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import class_images, folder_with, image_record
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import slides
from datamodules.synthetic.tissues import Tissue

CLASSES = (
    "01_TUMOR", "02_STROMA", "03_COMPLEX", "04_LYMPHO",
    "05_DEBRIS", "06_MUCOSA", "07_ADIPOSE", "08_EMPTY",
)  # fmt: skip
_SLIDE = re.compile(r"CRC-Prim-HE-\d+")

_TISSUES = (  # synthetic tissue by class; complex stroma is a mixed field with little tumour
    Tissue.TUMOUR, Tissue.STROMA, None, Tissue.LYMPHOID,
    Tissue.DEBRIS, Tissue.NORMAL, Tissue.ADIPOSE, Tissue.BACKGROUND,
)  # fmt: skip


class Kather2016(DatasetReader):
    """Kather-texture-2016: 8 classes of 625 patches.

    Class 02 is simple stroma, 03 complex stroma, 04 immune cells, 08 background.

    Layout:

        Kather_texture_2016_image_tiles_5000/<01_TUMOR ... 08_EMPTY>/*.tif

    Split: none is published. The slide is CRC-Prim-HE-<NN> in the file name; an image without it
    is its own group.
    Quirk: from the laboratory of NCT-CRC-HE-100K in other years, so not unseen after training on
    that.
    """

    title = "Kather-texture-2016"
    organs = ("colon",)
    licence = "CC BY 4.0"
    commercial = True
    citation = (
        "Kather et al.: Multi-class texture analysis in colorectal cancer histology. Scientific "
        "Reports 6:27988 (2016). doi:10.1038/srep27988"
    )
    homepage = "https://zenodo.org/records/53169"
    sources = ("NCT Heidelberg and UMM Mannheim colon",)
    archives = (
        Archive(
            f"{homepage}/files/Kather_texture_2016_image_tiles_5000.zip",
            # Not published: the checksum that OpenFL uses for this file.
            "sha384:7d86abe1d04e68b77c055820c2a4c582a1d25d2983e38ab724eac75affce8b7c"
            "b2cbf5ba68848dcfd9d84005d87d6790",
        ),
    )
    images = 5_000
    extent = (150, 150)
    disk_gb = 0.4
    download_gb = 0.25
    mpp = 0.495
    patch_size = 150
    view = View.WHOLE
    grouping = "slide"
    tasks = (Task("tissue", TaskKind.CLASSIFICATION, CLASSES),)
    layout = ("**/01_TUMOR/*.tif",)

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Patches of slides, every class on each."""
        top = root / "Kather_texture_2016_image_tiles_5000"
        for index, _, slide in slides(rng, images // len(CLASSES), mpp=cls.mpp, each=1):
            for label, (name, tissue) in enumerate(zip(CLASSES, _TISSUES, strict=True)):
                share = 0.2 if tissue is None else None
                drawn = slide.field(150, tissue=tissue, malignancy=(0.5, 1.0), epithelium=share)
                code = f"{0x1000 + 0x400 * label + index:X}"
                file = f"{code}_CRC-Prim-HE-{index + 1:02d}_001.tif_Row_1_Col_{1 + 150 * index}.tif"
                write_image(top / name / file, drawn.image)

    def records(self, root: Path) -> Iterator[Record]:
        """Class by class, sorted by file name."""
        top, complete = folder_with(root, CLASSES[0]), not self.options.allow_missing
        for path, label in class_images(root, top, CLASSES, complete):
            # [K] The pattern of the names is not verified, so a name may lack the slide.
            slide = _SLIDE.search(path.name)
            yield image_record(root, path, {"tissue": label}, group=slide[0] if slide else "")
