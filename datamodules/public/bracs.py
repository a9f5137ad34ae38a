"""BRACS: regions of breast lesions in seven classes."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datamodules.core import notes
from datamodules.core.records import SPLITS, Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import class_images, folder_with, image_record, layout_error, named
from datamodules.formats.tables import has_table, read_table
from datamodules.formats.xlsx import write_xlsx
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import slides

CLASSES = ("0_N", "1_PB", "2_UDH", "3_FEA", "4_ADH", "5_DCIS", "6_IC")
_TOP, _TABLE = "BRACS_RoI/latest_version", "BRACS.xlsx"
_COLUMNS = ("WSI Filename", "Patient Id")
_NAME = re.compile(r"(BRACS_\d+)_([A-Z]+)_\d+\.png")
_GRADES = (  # malignancy of synthetic tissue by class
    *((0.0, 0.05), (0.05, 0.15), (0.15, 0.3), (0.3, 0.45), (0.45, 0.55), (0.55, 0.75)),
    (0.85, 1.0),
)


class BRACS(DatasetReader):
    """BRACS: 4,539 regions of interest of 387 slides of 151 patients.

    N normal, PB pathological benign, UDH usual ductal hyperplasia, FEA flat epithelial atypia, ADH
    atypical ductal hyperplasia, DCIS ductal carcinoma in situ, IC invasive carcinoma.

    Layout:

        BRACS_RoI/latest_version/{train,val,test}/{0_N,...,6_IC}/BRACS_<slide>_<class>_<n>.png
        BRACS.xlsx      optional: WSI Filename, Patient Id, RoI, WSI label, Set

    Split: as published, 3,657 / 312 / 570; no patient lies in two of them.
    Grouping: the patient by BRACS.xlsx; without it the slide.
    Quirks: sides go from 127 to over 4,000 px; a region is scaled to one patch, of which the centre
    square is used. The server also offers previous_version, whose classes 3 and 4 are swapped.
    """

    # [V] Folders, names (BRACS_264_N_5.png), counts, smallest side and columns of BRACS.xlsx:
    # kaiko-ai/eva, bracs.py, and several programs that checked all files of the server.
    title = "BRACS breast carcinoma subtyping, regions"
    organs = ("breast",)
    licence = "CC BY-NC 4.0"
    commercial = False
    citation = (
        "Brancati et al.: BRACS: A dataset for breast carcinoma subtyping in H&E histology images. "
        "Database (2022). doi:10.1093/database/baac093"
    )
    homepage = "https://www.bracs.icar.cnr.it"
    sources = ("BRACS",)
    access = "form"
    obtain = (
        f"register at {homepage}, then fetch the folder {_TOP} (56 GB) and {_TABLE} from its "
        "server into this folder"
    )
    images = 4_539
    extent = (1_900, 1_900)
    disk_gb = 56
    download_gb = 56
    mpp = 0.25
    patch_size = 512
    view = View.WHOLE
    tasks = (Task("lesion", TaskKind.CLASSIFICATION, CLASSES),)
    layout = (f"**/{_TOP}/train",)
    published_splits = SPLITS

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Regions of 200 to 300 px, every class in every part; two slides are of one patient."""
        lines: list[list[str | int]] = [[*_COLUMNS, "RoI", "WSI label", "Set"]]
        for part, split in enumerate(SPLITS):
            count = max(1, images // 40) * (2 if part == 0 else 1)
            for index, _, slide in slides(rng, count, ["breast"], cls.mpp, each=1, least=1):
                wsi = f"BRACS_{1000 + 100 * part + index}"
                lines.append([wsi, 40 * part + index // 2, len(CLASSES), "PB", split])
                for label, name in enumerate(CLASSES):
                    height, width = rng.integers(200, 300, 2).tolist()
                    share = (0.4, 0.8)
                    drawn = slide.field(height, width, None, _GRADES[label], share)
                    file = f"{wsi}_{name[2:]}_{label + 1}.png"
                    write_image(root / _TOP / split / name / file, drawn.image)
        write_xlsx(root / _TABLE, lines)

    def records(self, root: Path) -> Iterator[Record]:
        """Part by part, class by class, sorted by file name."""
        top, complete = folder_with(root, _TOP), not self.options.allow_missing
        without = "no table of patients: each slide is its own group"
        patients: dict[str, str] = {}
        if has_table(root, top / _TABLE, without):
            for row in read_table(root, top / _TABLE, _COLUMNS):
                slide = row[_COLUMNS[0]].removesuffix(".svs")
                if patients.setdefault(slide, row[_COLUMNS[1]]) != row[_COLUMNS[1]]:
                    raise row.error(_COLUMNS[1], f"{slide} has another patient above")
        for split in SPLITS:
            for path, label in class_images(root, top / _TOP / split, CLASSES, complete):
                match = named(_NAME, root, path, "BRACS_<slide>_<class>_<n>.png")
                if match[2] != CLASSES[label][2:]:
                    problem = f"named class {match[2]}, but lies in folder {CLASSES[label]}"
                    raise layout_error(root, path, problem)
                if patients and match[1] not in patients:
                    notes.warning(match[1], f"slide that {_TABLE} does not list; its own group")
                patient = patients.get(match[1])
                group = match[1] if patient is None else f"patient {patient}"
                yield image_record(root, path, {"lesion": label}, split, group)
