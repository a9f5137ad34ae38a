"""PatchCamelyon: metastases in lymph nodes, 96 px patches in HDF5 files."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from datamodules.core import notes
from datamodules.core.errors import LayoutError
from datamodules.core.records import SPLITS, Archive, Record, Task, TaskKind, on_google_drive
from datamodules.formats.arrays import hdf5_image, hdf5_rows, hdf5_shape, whole_numbers
from datamodules.formats.cells import spelling
from datamodules.formats.layout import check_rows
from datamodules.formats.row import Row
from datamodules.formats.tables import has_table, read_table
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import append_rows, slides
from datamodules.synthetic.tissues import Tissue

_STEM = "camelyonpatch_level_2_split_"
_SIDE = 96
_SPLITS = {"train": "train", "valid": "val", "test": "test"}
_AGAIN = "center_tumor_patch"
_URL = "https://zenodo.org/records/2546921/files/"
# By part: checksum of the archive as its record lists it, and of the unpacked file, as several
# programs that read PCam check it.
_FILES = {
    "train_x": ("1571f514728f59376b705fc836ff4b63", "01844da899645b4d6f84946d417ba453"),
    "train_y": ("35c2d7259d906cfc8143347bb8e05be7", "0781386bf6c2fb62d58ff18891466aca"),
    "valid_x": ("d5b63470df7cfa627aeec8b9dc0c066e", "81cf9680f1724c40673f10dc88e909b1"),
    "valid_y": ("2b85f58b927af9964a4c15b8f7e8f179", "94d8aacc249253159ce2a2e78a86e658"),
    "test_x": ("d8c2d60d490dbd479f8199bdfa0cf6ec", "2614b2e6717d6356be141d9d6dbfcb7e"),
    "test_y": ("60a7035772fbdb7f34eb86d4420cf66a", "11ed647efe9fe457a4eb45df1dba19ba"),
}
_BYTES = {"valid_x": 805_965_320, "test_x": 800_875_929}  # of the others only roughly known
_DRIVE = {  # the authors' other copy of the same files
    "train_x": "1Ka0XfEMiwgCYPdTI-vv6eUElOBnKFKQ2",
    "train_y": "1269yhu3pZDP8UYFQs-NYs3FPwuK-nGSG",
    "valid_x": "1hgshYGWK8V-eGRy8LToWJJgDU_rXWVJ3",
    "valid_y": "1bH8ZRbhSVAhScTS0p9-ZzGnX91cHT3uO",
    "test_x": "1qV65ZqZvWzuIVthK8eVDhIwrbnsJdbg_",
    "test_y": "17BHrSrwWKjYsOgTMmoqrIjDy6Fa2o_gP",
}
_META = {
    "train": "5a3dd671e465cfd74b5b822125e65b0a",
    "valid": "67589e00a4a37ec317f2d1932c7502ca",
    "test": "3455fd69135b66734e1008f3af684566",
}


class PCam(DatasetReader):
    """PatchCamelyon (PCam): patches of lymph node sections of CAMELYON16.

    Half of them hold a metastasis of breast cancer in their central 32x32 px.

    Layout:

        camelyonpatch_level_2_split_{train,valid,test}_x.h5      'x' uint8 (n, 96, 96, 3)
        camelyonpatch_level_2_split_{train,valid,test}_y.h5      'y' uint8 (n, 1, 1, 1)
        camelyonpatch_level_2_split_{train,valid,test}_meta.csv  optional; column wsi

    The publisher compresses each .h5 file (.h5.gz): `datasets download` unpacks them, because a
    compressed file cannot be read at a random position.

    Split: official, 262,144 / 32,768 / 32,768, balanced; no slide lies in two of them.
    Grouping: without the meta tables, published beside the archives, each patch is its own group:
    the official split still keeps slides apart, any other split would not.
    Quirk: some patches occur twice within the training part.
    """

    title = "PatchCamelyon"
    organs = ("lymph node",)
    licence = "CC0 1.0"
    commercial = True
    citation = (
        "Veeling et al., Rotation equivariant CNNs for digital pathology, MICCAI 2018, "
        "doi:10.1007/978-3-030-00934-2_24"
    )
    homepage = "https://zenodo.org/records/2546921"
    sources = ("CAMELYON16",)
    archives = (
        *(
            Archive(
                f"{_URL}{_STEM}{part}.h5.gz",
                f"md5:{packed}",
                _BYTES.get(part, 0),
                content=f"md5:{content}",
                mirrors=(on_google_drive(_DRIVE[part]),),
            )
            for part, (packed, content) in _FILES.items()
        ),
        *(Archive(f"{_URL}{_STEM}{k}_meta.csv", f"md5:{md5}") for k, md5 in _META.items()),
    )
    images = 327_680
    extent = (96, 96)
    disk_gb = 9.1
    download_gb = 8.0
    mpp = 1.0
    patch_size = 96
    view = View.WHOLE
    grouping = "slide"
    published_splits = SPLITS
    tasks = (Task("tumor", TaskKind.CLASSIFICATION, ("no_tumor", "tumor"), positive="tumor"),)
    # A compressed file matches too: `records` then asks to unpack it.
    layout = tuple(f"{_STEM}{part}_{what}.h5*" for part in _SPLITS for what in ("x", "y"))

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Six HDF5 files with meta tables; one training patch occurs twice."""
        for part, share in (("train", 0.7), ("valid", 0.15), ("test", 0.15)):
            patches, stem = [], f"{_STEM}{part}"
            columns = ("", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi")
            append_rows(root / f"{stem}_meta.csv", columns)
            fields = slides(rng, max(8, round(images * share)), ["lymph-node"], cls.mpp, least=2)
            for row, (index, number, slide) in enumerate(fields):
                tissue = (Tissue.LYMPHOID, Tissue.TUMOUR, None, Tissue.TUMOUR)[row % 4]
                grade = (0.5, 1.0) if row % 2 else 0.0
                patches.append(slide.field(96, tissue=tissue, malignancy=grade).image)
                place = (row, 384 * row, 96 * number, row % 2 == 1, row % 2 == 1)
                case = f"camelyon16_{part}_tumor_{index:03d}"
                append_rows(root / f"{stem}_meta.csv", (*place, case))
            patches[3] = patches[1 if part == "train" else 3]
            labels = (np.arange(len(patches)) % 2).reshape(-1, 1, 1, 1)
            for what, data in (("x", patches), ("y", labels)):
                with h5py.File(root / f"{stem}_{what}.h5", "w") as file:
                    file[what] = np.array(data, np.uint8)

    def records(self, root: Path) -> Iterator[Record]:
        """One record per patch, split by split."""
        for part, split in _SPLITS.items():
            images, labels = (_unpacked(root / f"{_STEM}{part}_{what}.h5") for what in ("x", "y"))
            count = hdf5_shape(images, "x", (None, *[_SIDE] * 2, 3))[0]
            # [K] The trailing axes of length 1 of the labels are not verified: any number is valid.
            values = whole_numbers(str(labels), hdf5_rows(labels, "y", count))
            meta = root / f"{_STEM}{part}_meta.csv"
            columns = ("wsi",), (_AGAIN,)
            without = "no table of slides: each patch is its own group"
            slides = read_table(root, meta, *columns) if has_table(root, meta, without) else None
            if slides is not None:
                check_rows(root, meta, len(slides), count)
                _compare(slides, values.tolist())
            for row, value in enumerate(values):
                source = f"{images.name}#{row}"
                group = source if slides is None else slides[row]["wsi"]
                image = partial(hdf5_image, images, "x", row)
                yield Record(source, image, {"tumor": int(value)}, split, group)


def _compare(rows: list[Row], labels: list[int]) -> None:
    """Compare the labels with those that the table repeats; in another order, many differ."""
    codes = {"true": 1, "1": 1, "false": 0, "0": 0}
    pairs = [pair for pair in zip(rows, labels, strict=True) if _AGAIN in pair[0]]
    odd = [(row, label) for row, label in pairs if codes.get(spelling(row[_AGAIN])) != label]
    if len(odd) > len(rows) / 10:
        problem = f"'{odd[0][0][_AGAIN]}', its patch has label {odd[0][1]}; {len(odd)} rows differ"
        raise odd[0][0].error(_AGAIN, problem)
    for row, _ in odd:
        notes.warning(row.where, "another label than that of the patch")


def _unpacked(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    if packed.is_file() and not path.is_file():
        raise LayoutError(f"{packed}: is still compressed; run `gunzip --keep {packed}`")
    return path
