"""PatchCamelyon: metastases in lymph nodes, 96 px patches in HDF5 files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from datamodules.core.errors import LayoutError
from datamodules.core.records import Archive, Image, Record, Task, TaskKind
from datamodules.formats.arrays import hdf5_image, hdf5_rows, hdf5_shape
from datamodules.formats.layout import check_rows
from datamodules.formats.tables import read_table
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import Stain, Tissue, scene

_STEM = "camelyonpatch_level_2_split_"
_SPLITS = {"train": "train", "valid": "val", "test": "test"}
_URL = "https://zenodo.org/records/2546921/files/"
# Of the unpacked files, as several programs that read PCam check them.
_MD5 = {
    "train_x": "01844da899645b4d6f84946d417ba453",
    "train_y": "0781386bf6c2fb62d58ff18891466aca",
    "valid_x": "81cf9680f1724c40673f10dc88e909b1",
    "valid_y": "94d8aacc249253159ce2a2e78a86e658",
    "test_x": "2614b2e6717d6356be141d9d6dbfcb7e",
    "test_y": "11ed647efe9fe457a4eb45df1dba19ba",
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
        *(Archive(f"{_URL}{_STEM}{k}.h5.gz", content=f"md5:{md5}") for k, md5 in _MD5.items()),
        *(Archive(f"{_URL}{_STEM}{part}_meta.csv") for part in _SPLITS),
    )
    images = 327_680
    extent = (96, 96)
    disk_gb = 9.1
    mpp = 1.0
    patch_size = 96
    view = View.WHOLE
    grouping = "slide"
    tasks = (Task("tumor", TaskKind.CLASSIFICATION, ("no_tumor", "tumor"), positive="tumor"),)
    # A compressed file matches too: `records` then asks to unpack it.
    layout = tuple(f"{_STEM}{part}_{what}.h5*" for part in _SPLITS for what in ("x", "y"))

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Six HDF5 files with meta tables; one training patch occurs twice."""
        counts = {"train": max(8, images * 7 // 10), "valid": max(4, images * 3 // 20)}
        counts["test"] = counts["valid"]
        slide = 0
        for part, count in counts.items():
            slides = max(2, count // 10)
            stains = [Stain.draw(rng) for _ in range(slides)]
            patches, lines = [], []
            for row in range(count):
                tumour = bool(row % 2)
                which = row // 2 % slides
                patches.append(_patch(rng, tumour, stains[which]))
                name = f"camelyon16_train_tumor_{slide + which:03d}"
                lines.append([row, 384 * row, 96 * row, tumour, tumour, name])
            slide += slides
            if part == "train":
                patches[-1], lines[-1] = patches[1], [count - 1, *lines[1][1:]]
            labels = [[[[line[4]]]] for line in lines]
            for what, data in (("x", patches), ("y", labels)):
                with h5py.File(root / f"{_STEM}{part}_{what}.h5", "w") as file:
                    file[what] = np.array(data, np.uint8)
            with (root / f"{_STEM}{part}_meta.csv").open("w", newline="") as table:
                writer = csv.writer(table)
                writer.writerow(
                    ["", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi"]
                )
                writer.writerows(lines)

    def records(self, root: Path) -> Iterator[Record]:
        """One record per patch, split by split."""
        for part, split in _SPLITS.items():
            images, labels = (_unpacked(root / f"{_STEM}{part}_{what}.h5") for what in ("x", "y"))
            count = hdf5_shape(images, "x", (None, None, None, 3))[0]
            # [K] The trailing axes of length 1 of the labels are not verified: any number is valid.
            values = hdf5_rows(labels, "y").ravel()
            check_rows(root, labels, len(values), count)
            meta = root / f"{_STEM}{part}_meta.csv"
            slides = read_table(root, meta, ("wsi",)) if meta.is_file() else None
            if slides is not None:
                check_rows(root, meta, len(slides), count)
            for row, value in enumerate(values):
                source = f"{images.name}#{row}"
                group = source if slides is None else slides[row]["wsi"]
                image = partial(hdf5_image, images, "x", row)
                yield Record(source, image, {"tumor": int(value)}, split, group)


def _unpacked(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    if packed.is_file() and not path.is_file():
        raise LayoutError(f"{packed}: is still compressed; run `gunzip --keep {packed}`")
    return path


def _patch(rng: np.random.Generator, tumour: bool, stain: Stain) -> Image:
    """A metastasis, or lymphoid and other benign tissue."""
    grade = float(rng.uniform(0.5, 1.0)) if tumour else 0.0
    plain = Tissue.LYMPHOID if rng.random() < 0.6 else None
    tissue = Tissue.TUMOUR if tumour else plain
    return scene(rng, 96, 96, PCam.mpp, tissue, grade, stain=stain, organ="lymph-node").image
