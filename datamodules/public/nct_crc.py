"""NCT-CRC-HE-100K and CRC-VAL-HE-7K."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.options import ReaderOptions
from datamodules.core.records import Archive, Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import class_images, image_record, layout_error, named
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import slides
from datamodules.synthetic.tissues import Tissue

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
_NAME = re.compile(r"([A-Z]+)-(?:TCGA-)?[A-Za-z]+\.tif")


@dataclass
class NCTCRCOptions(ReaderOptions):
    """Options of `NCTCRC`.

    Attributes:
        nonorm: read NCT-CRC-HE-100K-NONORM, the training images before stain normalisation.
    """

    nonorm: bool = False


class NCTCRC(DatasetReader):
    """NCT-CRC-HE-100K (training) and CRC-VAL-HE-7K (validation): tissue of colorectal cancer.

    ADI adipose, BACK background, DEB debris, LYM lymphocytes, MUC mucus, MUS smooth muscle, NORM
    normal mucosa, STR cancer-associated stroma, TUM tumour epithelium.

    Layout; each of the two top folders may be present alone:

        NCT-CRC-HE-100K/<CLASS>/<CLASS>-<8 letters>.tif           100,000 patches, 86 slides
        NCT-CRC-HE-100K-NONORM/...                                the same, option nonorm
        CRC-VAL-HE-7K/<CLASS>/<CLASS>-TCGA-<8 letters>.tif        7,180 patches, 50 patients

    Split: the 100K are "train", the 7K (other patients) are "val"; the 7K alone are "train",
    because nothing else is left to train on.
    Grouping: file names carry no patient, so a split inside either part can put one patient on
    both sides. Between the two parts it cannot.
    Quirks: the 100K are Macenko-normalised; JPEG artefacts, a colour bias per class and
    saturated pixels make classes separable by low-level statistics (arXiv 2409.11546), so
    train with strong colour augmentation or read the NONORM version: fetch its archive from the
    same record (md5 035777cf327776a71a05c95da6d6325f) and unpack it with `datasets unpack`.
    Class folders missing from CRC-VAL-HE-7K are only counted, so that a part of it is usable.
    """

    title = "NCT-CRC-HE-100K and CRC-VAL-HE-7K"
    organs = ("colon",)
    licence = "CC BY 4.0"
    commercial = True
    citation = (
        "Kather, Halama, Marx: 100,000 histological images of human colorectal cancer and healthy "
        "tissue. Zenodo (2018). doi:10.5281/zenodo.1214456"
    )
    homepage = "https://zenodo.org/records/1214456"
    sources = ("NCT Heidelberg and UMM Mannheim colon",)
    archives = (
        Archive(
            f"{homepage}/files/NCT-CRC-HE-100K.zip",
            "md5:6fd702d11df6292bc054397ae038a464",
            11_690_284_003,
        ),
        Archive(
            f"{homepage}/files/CRC-VAL-HE-7K.zip",
            "md5:2fd1651b4f94ebd818ebf90ad2b6ce06",
            800_276_929,
        ),
    )
    images = 107_180
    extent = (224, 224)
    disk_gb = 16.1
    mpp = 0.5
    patch_size = 224
    view = View.WHOLE
    tasks = (Task("tissue", TaskKind.CLASSIFICATION, CLASSES),)
    layout = ("*CRC*-HE-*",)
    grouping = "image"
    published_splits = ("train", "val")
    options_type = NCTCRCOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Both parts, every class in each; every image has a stain of its own."""
        for name, tissue in zip(CLASSES, Tissue, strict=True):
            grade = (0.35, 1.0) if tissue is Tissue.TUMOUR else 0.0
            for index, _, slide in slides(rng, images // 9, mpp=cls.mpp, each=1, least=3):
                code = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 8))
                held_out = index % 5 == 2
                part, middle = ("CRC-VAL-HE-7K", "TCGA-") if held_out else ("NCT-CRC-HE-100K", "")
                drawn = slide.field(224, tissue=tissue, malignancy=grade)
                write_image(root / part / name / f"{name}-{middle}{code}.tif", drawn.image)

    def records(self, root: Path) -> Iterator[Record]:
        """The 100K, then the 7K, class by class, sorted by file name."""
        large = root / ("NCT-CRC-HE-100K-NONORM" if self.options.nonorm else "NCT-CRC-HE-100K")
        small = root / "CRC-VAL-HE-7K"
        if self.options.nonorm and not large.is_dir():
            raise DatasetNotFoundError(f"{large}: no such folder; options.nonorm asks for it")
        parts = [(large, "train")] if large.is_dir() else []
        if small.is_dir():
            parts.append((small, "val" if parts else "train"))
        if not parts:
            raise DatasetNotFoundError(f"{root}: holds neither {large.name} nor {small.name}")
        for folder, split in parts:
            complete = folder == large and not self.options.allow_missing
            for path, label in class_images(root, folder, CLASSES, complete):
                match = named(_NAME, root, path, f"{CLASSES[label]}-<8 letters>.tif")
                if match[1] != CLASSES[label]:
                    raise layout_error(root, path, f"named {match[1]} but lies in {CLASSES[label]}")
                yield image_record(root, path, {"tissue": label}, split)
