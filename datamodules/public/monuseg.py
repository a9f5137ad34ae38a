"""MoNuSeg 2018: nuclei of several organs."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.core.records import Record, Targets, google_drive_zips
from datamodules.formats.annotations import nucleus_tasks
from datamodules.formats.aperio import filled, outlines_xml, resolution, surrounded
from datamodules.formats.images import write_image
from datamodules.formats.layout import image_record, list_files, paired, relative
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import append_rows, slides

_TRAIN = "MoNuSeg 2018 Training Data"
_TEST = "MoNuSegTestData"
_ARCHIVES = (  # as the challenge links them; checksums that two independent programs found
    (
        *(_TRAIN, "1ZgqFJomqQGNnsx7w7QBzQQMVA16lbVCA"),
        "25d3d3185bb2970b397cafa72eb664c9b4d24294aee382e7e3df9885affce742",
    ),
    (
        *(_TEST, "1NKkSQ5T0ZNQ8aUhh0a8Dt2YKYCQXIViw"),
        "13e522387ae8b1bcc0530e13ff9c7b4d91ec74959ef6f6e57747368d7ee6f88a",
    ),
)


class MoNuSeg(DatasetReader):
    """MoNuSeg 2018, the multi-organ nucleus segmentation challenge.

    37 training and 14 test fields from TCGA slides of seven organs; lung and brain occur in the
    test set only.

    Layout:

        MoNuSeg 2018 Training Data/Tissue Images/<id>.tif
        MoNuSeg 2018 Training Data/Annotations/<id>.xml      Aperio ImageScope, one Region a nucleus
        MoNuSegTestData/<id>.tif, <id>.xml                   a separate download

    Split: as published, train and test. The patient is the first 12 characters of <id>.
    Quirks: µm/px stands in nearly all XML files and differs a little; where it does not, the
    published 0.25 is taken. Vertices lie up to 3 px outside the image and are clipped; outlines
    may overlap; a few have two vertices and are left out. Regions marked NegativeROA are holes.
    A pixel is nucleus if its centre lies within an outline. Touching nuclei become one region of
    the mask, the boxes keep them apart.
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
    archives = google_drive_zips(_ARCHIVES)
    obtain = (
        f"get training and test data from {homepage}/Data/ (links to Google Drive, which refuses "
        "programs when a file is in demand)"
    )
    images = 51
    extent = (1_000, 1_000)
    disk_gb = 0.2
    download_gb = 0.2
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
            ids = range(1, len(drawn.nucleus_types) + 1)
            append_rows(
                root / outlines / f"{name}.xml", [outlines_xml(drawn.nuclei, slide.mpp, {"": ids})]
            )

    def records(self, root: Path) -> Iterator[Record]:
        """Training images, then test images, sorted by id."""
        parts = [("train", root / _TRAIN / "Tissue Images", root / _TRAIN / "Annotations")]
        if (root / _TEST).is_dir():
            parts.append(("test", root / _TEST, root / _TEST))
        for split, images, outlined in parts:
            expected = f"{relative(root, outlined)}/{{}}.xml"
            files = list_files(images, {".tif"}), list_files(outlined, {".xml"})
            for path, xml in paired(root, *files, expected, self.options.allow_missing):
                targets: Targets = {
                    "nuclei": partial(filled, root, xml, path),
                    "nuclei_detection": partial(surrounded, root, xml, path),
                }
                mpp = resolution(root, xml, self.mpp)
                yield image_record(root, path, targets, split, path.stem[:12], mpp)
