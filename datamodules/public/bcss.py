"""BCSS: regions of breast cancer, segmented by tissue."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.core.options import ReaderOptions
from datamodules.core.records import SPLITS, Record, Task, TaskKind
from datamodules.formats.annotations import Codes
from datamodules.formats.images import write_image
from datamodules.formats.layout import folder_with, image_record, list_images, named, paired
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import slides
from datamodules.synthetic.tissues import Tissue

CODES = (
    "outside_roi", "tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris",
    "glandular_secretions", "blood", "exclude", "metaplasia_NOS", "fat", "plasma_cells",
    "other_immune_infiltrate", "mucoid_material", "normal_acinus_or_duct", "lymphatics",
    "undetermined", "nerve", "skin_adnexa", "blood_vessel", "angioinvasion", "dcis", "other",
)  # fmt: skip
GROUPS = ("tumor", "stroma", "inflammatory", "necrosis", "other")
_GROUP_OF_CODE = {1: 0, 19: 0, 20: 0, 2: 1, 3: 2, 10: 2, 11: 2, 4: 3}
_IGNORED = dict.fromkeys((0, 7, 15), 255)
_INDICES = {
    "grouped": {code: _GROUP_OF_CODE.get(code, 4) for code in range(len(CODES))} | _IGNORED,
    "codes": {code: code for code in range(len(CODES))} | _IGNORED,
}
_NAME = re.compile(r"(?P<patient>TCGA-(?P<institute>\w+)-\w+)-.*_MPP-(?P<mpp>\d+\.\d+)\.png")
_SPLIT_OF_INSTITUTE = {
    **dict.fromkeys(("OL", "LL", "E2", "EW", "GM", "S3"), "test"),
    **dict.fromkeys(("BH", "C8", "A8", "A1", "E9"), "val"),
}

_CODE_OF_TISSUE = {
    Tissue.TUMOUR: 1, Tissue.STROMA: 2, Tissue.LYMPHOID: 3, Tissue.DEBRIS: 4, Tissue.ADIPOSE: 9,
    Tissue.MUCUS: 12, Tissue.NORMAL: 13, Tissue.MUSCLE: 21, Tissue.BACKGROUND: 21,
}  # fmt: skip


@dataclass
class BCSSOptions(ReaderOptions):
    """Options of the BCSS reader.

    Attributes:
        classes: "grouped" for five classes, "codes" for the 22 published ones.
    """

    classes: Literal["grouped", "codes"] = "grouped"


class BCSS(DatasetReader):
    """Breast Cancer Semantic Segmentation (BCSS).

    Regions of up to 7000 px, one per slide of TCGA's triple-negative breast cancers, outlined by
    students and pathologists.

    Layout:

        rgbs_colorNormalized/<id>.png  RGB; id: TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500
        masks/<id>.png                 8 bit, one of 22 codes per pixel

    Grouped classes hold the codes: tumor 1, 19, 20; stroma 2; inflammatory 3, 10, 11; necrosis 4;
    other all else. Always ignored: 0 outside_roi, 7 exclude, 15 undetermined.

    Split: by institute, the second token of the id: test OL, LL, E2, EW, GM, S3 (the authors'
    split, 45 regions); val BH, C8, A8, A1, E9 (30); train the rest (76).
    Quirks: regions are cut along rotated outlines, so that corners hold code 0; the images are
    colour-normalised.
    """

    title = "Breast Cancer Semantic Segmentation"
    organs = ("breast",)
    licence = "CC0 1.0"
    commercial = True
    citation = (
        "Amgad et al., Structured crowdsourcing enables convolutional segmentation of histology "
        "images, Bioinformatics 35(18), 2019, doi:10.1093/bioinformatics/btz083"
    )
    homepage = "https://github.com/PathologyDataScience/BCSS"
    sources = ("TCGA",)
    access = "by hand"
    obtain = (
        f"open {homepage}, follow its link to the folder with the 0.25 µm/px version and put "
        "rgbs_colorNormalized/ and masks/ there"
    )
    images = 151
    extent = (4_900, 4_900)
    disk_gb = 6
    mpp = 0.25
    tasks = (Task("tissue", TaskKind.SEGMENTATION, GROUPS),)
    layout = ("**/rgbs_colorNormalized/*.png", "**/masks/*.png")
    options_type = BCSSOptions
    published_splits = SPLITS

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Regions of 800x640 px, each for four images; corners lie outside of the region."""
        beside = (Tissue.LYMPHOID, Tissue.DEBRIS)
        table = np.array([_CODE_OF_TISSUE[tissue] for tissue in Tissue], np.uint8)
        for index, _, slide in slides(rng, images // 4, ["breast"], cls.mpp, each=1, least=6):
            drawn = slide.field(640, 800, None, (0.5, 1.0), (0.3, 0.6), beside=beside)
            mask = np.where(np.tri(640, 800, -560), np.uint8(0), table[drawn.regions])
            mask[:40, -40:] = 7
            patient = f"TCGA-{('AR', 'OL', 'D8', 'BH', 'A2', 'AC')[index % 6]}-A{index:03d}"
            name = f"{patient}-DX1_xmin{1000 + index}_ymin{2000 + index}_MPP-0.2500.png"
            write_image(root / "rgbs_colorNormalized" / name, drawn.image)
            write_image(root / "masks" / name, mask)

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """Five classes, or the 22 published codes where the option asks for them."""
        classes = GROUPS if self.options.classes == "grouped" else CODES
        return (Task("tissue", TaskKind.SEGMENTATION, classes),)

    def records(self, root: Path) -> Iterator[Record]:
        """One record per region."""
        top = folder_with(root, "rgbs_colorNormalized")
        codes = Codes(_INDICES[self.options.classes])
        images, masks = (list_images(top / name) for name in ("rgbs_colorNormalized", "masks"))
        missing = self.options.allow_missing
        for path, mask in paired(root, images, masks, "masks/{}.png", missing):
            match = named(_NAME, root, path, "TCGA-A1-A0SK-DX1_xmin1_ymin1_MPP-0.2500.png")
            split, targets = split_of(match["institute"]), {"tissue": partial(codes, mask)}
            yield image_record(root, path, targets, split, match["patient"], float(match["mpp"]))


def split_of(institute: str) -> str:
    """Split of an institute, the second token of a TCGA barcode."""
    return _SPLIT_OF_INSTITUTE.get(institute, "train")
