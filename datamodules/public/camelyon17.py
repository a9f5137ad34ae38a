"""CAMELYON17-WILDS: metastases in lymph nodes of five hospitals."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datamodules.core.records import SPLITS, Archive, Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import folder_with, image_record, note_unlisted, subfolders
from datamodules.formats.tables import read_table
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import Slide, append_rows
from datamodules.synthetic.stain import Stain
from datamodules.synthetic.tissues import Tissue

_COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
_HELD_OUT = {1: "val", 2: "test"}  # by hospital; the others are training
_CENTERS = 5
_URL = (
    "https://worksheets.codalab.org/rest/bundles/0xe45e15f39fb54e9d9e919556af67aabe/contents/blob/"
)


class Camelyon17(DatasetReader):
    """CAMELYON17-WILDS: patches of lymph nodes from five hospitals, half of them with tumour.

    Made to measure how a model does on a hospital that it has never seen. A patch is positive if
    its central 32x32 px hold tumour.

    Layout:

        metadata.csv    patient, node, x_coord, y_coord, tumor, slide, center (0 to 4), split
        patches/patient_<p>_node_<n>/patch_patient_<p>_node_<n>_x_<x>_y_<y>.png    96x96 px

    Split: by hospital as published: centre 1 is val, centre 2 the test, the others are training.
    The patches that the publisher sets aside from the training slides (split 1, "id_val") are
    training here: they are of the same slides.
    Grouping: a group is named "center <c> patient <p>", so that `centre: center (.)` of an
    unseen dataset gives the robustness index its hospitals.
    Quirk: two of the hospitals are those of CAMELYON16, of which PCam is made.
    """

    # [V] Columns, paths, hospitals of the splits, 96 px, CC0: p-lambda/wilds,
    # camelyon17_dataset.py, with address and size of the archive; number of patches: a copy on a
    # hub. [K] 10x, that is about 1 µm/px.
    title = "CAMELYON17-WILDS lymph node patches"
    organs = ("lymph node",)
    licence = "CC0 1.0"
    commercial = True
    citation = (
        "Koh et al.: WILDS: A benchmark of in-the-wild distribution shifts. ICML 2021. "
        "arXiv 2012.07421; Bandi et al.: From detection of individual metastases to classification "
        "of lymph node status at the patient level: the CAMELYON17 challenge. IEEE TMI 38 (2019). "
        "doi:10.1109/TMI.2018.2867350"
    )
    homepage = "https://wilds.stanford.edu/datasets"
    sources = ("CAMELYON17", "CAMELYON16")
    archives = (Archive(_URL, name="camelyon17_v1.0.tar.gz"),)
    images = 455_954
    extent = (96, 96)
    disk_gb = 10
    download_gb = 10.7
    mpp = 1.0
    patch_size = 96
    view = View.WHOLE
    tasks = (Task("tumor", TaskKind.CLASSIFICATION, ("no_tumor", "tumor"), positive="tumor"),)
    layout = ("**/metadata.csv", "**/patches")
    published_splits = SPLITS

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Two patients of each hospital, which has a stain of its own; both classes of each."""
        append_rows(root / "metadata.csv", ("", *_COLUMNS))
        each, row = max(2, images // (2 * _CENTERS)), 0
        for center in range(_CENTERS):
            stain = Stain.draw(rng)
            for patient in (f"{20 * center + 4:03d}", f"{20 * center + 17:03d}"):
                slide = Slide(rng, "lymph-node", cls.mpp, stain)
                for number in range(each):
                    tissue = (Tissue.LYMPHOID, Tissue.TUMOUR)[number % 2]
                    drawn = slide.field(96, tissue=tissue, malignancy=(0.5, 1.0))
                    x, y, case = 96 * number, 3328 + 96 * number, f"patient_{patient}_node_1"
                    path = root / "patches" / case / f"patch_{case}_x_{x}_y_{y}.png"
                    write_image(path, drawn.image)
                    place = (row, patient, 1, x, y, number % 2, center, int(number == 1))
                    append_rows(root / "metadata.csv", place)
                    row += 1

    def records(self, root: Path) -> Iterator[Record]:
        """In the order of metadata.csv."""
        top, listed = folder_with(root, "metadata.csv"), set[str]()
        centers: dict[str, int] = {}
        for row in read_table(root, top / "metadata.csv", _COLUMNS):
            center = row.whole("center", 0, _CENTERS - 1)
            row.whole("split", 0, 3)
            if centers.setdefault(row["patient"], center) != center:
                raise row.error("center", f"patient {row['patient']} has another one above")
            case = f"patient_{row.file('patient')}_node_{row.whole('node')}"
            name = f"patch_{case}_x_{row.whole('x_coord')}_y_{row.whole('y_coord')}.png"
            group = f"center {center} patient {row['patient']}"
            targets = {"tumor": row.whole("tumor", 0, 1)}
            listed.add(name)
            split = _HELD_OUT.get(center, "train")
            yield image_record(root, top / "patches" / case / name, targets, split, group)
        for folder in subfolders(top / "patches"):
            note_unlisted(root, folder, listed, "metadata.csv")
