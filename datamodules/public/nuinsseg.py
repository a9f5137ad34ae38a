"""NuInsSeg: nuclei of 31 human and mouse organs."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.core import notes
from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.records import Archive, Boxes, Mask, Record, Targets
from datamodules.formats.annotations import instance_boxes, nucleus_tasks
from datamodules.formats.images import read_foreground, read_ids, write_image
from datamodules.formats.layout import image_record, list_images, paired, relative, subfolders
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import slides

_IMAGES, _LABELS = "tissue images", "label masks modify"
_VAGUE = ("vague areas/mask binary", "vague areas/mask binary_vague")
_ORGANS = {  # synthetic copies: folder and style of the tissue
    "human bladder": "bladder", "human kidney": "kidney", "human liver": "liver",
    "human lung": "lung", "human pancreas": "pancreas", "mouse kidney": "kidney",
}  # fmt: skip


class NuInsSeg(DatasetReader):
    """NuInsSeg: 665 fields of 31 human and mouse organs with more than 30,000 nuclei.

    Layout, for each organ:

        <human|mouse> <organ>/tissue images/<name>.png          512x512 px
        <human|mouse> <organ>/label masks modify/<name>.tif     0 background, 1..n the nuclei
        <human|mouse> <organ>/vague areas/mask binary/<name>.png    where nobody can tell; optional
        and masks in other forms, which are not needed

    Pixels of vague areas carry no label.
    Split: none is published here.
    Grouping: each organ is one slide, so that a held-out group is an organ that training never saw.
    Quirks: the folder of vague areas is called "mask binary_vague" in some copies. Some fields hold
    no nucleus that can be told.
    """

    # [V] Folders and meaning of the masks: masih4/NuInsSeg, README.md (31 slides, 665 fields), and
    # constantinpape/torch-em, nuinsseg.py; both names of the vague areas, the archive and 0.25
    # µm/px: programs that read it, InstanSeg among them. [K] Vague areas are not black.
    title = "NuInsSeg nuclei of 31 organs"
    organs = ("31 organs of human and mouse",)
    licence = "CC BY 4.0"
    commercial = True
    citation = (
        "Mahbod et al.: NuInsSeg: A fully annotated dataset for nuclei instance segmentation in "
        "H&E-stained histological images. Scientific Data 11:295 (2024). "
        "doi:10.1038/s41597-024-03117-2"
    )
    homepage = "https://doi.org/10.5281/zenodo.10518968"
    sources = ("Medical University of Vienna organs",)
    archives = (Archive("https://zenodo.org/records/10518968/files/NuInsSeg.zip"),)
    images = 665
    extent = (512, 512)
    disk_gb = 3
    download_gb = 1.6
    mpp = 0.25
    grouping = "slide"
    tasks = nucleus_tasks(("nucleus",))
    layout = (f"**/{_IMAGES}/*.png", f"**/{_LABELS}/*.tif")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Fields of 512x512 px of six organs, one slide each; a corner of one in two is vague."""
        fields = slides(rng, images // 2, list(_ORGANS.values()), cls.mpp, each=1, least=6)
        for index, _, slide in fields:
            folder = list(_ORGANS)[index % len(_ORGANS)]
            drawn = slide.field(512, malignancy=(0.0, 0.2))
            name = f"{folder.replace(' ', '_')}_{index // len(_ORGANS) + 1:02d}"
            write_image(root / folder / _IMAGES / f"{name}.png", drawn.image)
            ids = drawn.nuclei.astype(np.uint16)
            write_image(root / folder / _LABELS / f"{name}.tif", ids)
            vague = np.zeros((512, 512), np.uint8)
            vague[:80, :120] = 255 * (index % 2)
            write_image(root / folder / _VAGUE[0] / f"{name}.png", vague)

    def records(self, root: Path) -> Iterator[Record]:
        """Organ by organ, sorted by file name."""
        tops = [root, *subfolders(root)]
        organs = [folder for top in tops for folder in subfolders(top) if _has_images(folder)]
        if not organs:
            raise DatasetNotFoundError(f"{root}: no '<organ>/{_IMAGES}' here or one folder deeper")
        for organ in sorted(organs, key=lambda folder: folder.name):
            files = list_images(organ / _IMAGES), list_images(organ / _LABELS)
            vague = [organ / name for name in _VAGUE if (organ / name).is_dir()]
            expected = f"{relative(root, organ)}/{_LABELS}/{{}}.tif"
            for path, ids in paired(root, *files, expected, self.options.allow_missing):
                masks = [folder / f"{path.stem}.png" for folder in vague]
                found = next(filter(Path.is_file, masks), None)
                if masks and found is None:
                    notes.warning(relative(root, path), "no mask of its vague areas")
                targets: Targets = {
                    "nuclei": partial(mask_of, ids, found),
                    "nuclei_detection": partial(boxes_of, ids),
                }
                yield image_record(root, path, targets, group=organ.name)


def _has_images(folder: Path) -> bool:
    return (folder / _IMAGES).is_dir()


def mask_of(ids: Path, vague: Path | None) -> Mask:
    """Background 0, nucleus 1, and 255 where it cannot be told."""
    mask = (read_ids(ids) > 0).astype(np.uint8)
    if vague is not None:
        unknown = read_foreground(vague)
        if unknown.shape != mask.shape:
            height, width = unknown.shape
            raise LayoutError(f"{vague}: {width}x{height} px, its labels have another size")
        mask[unknown > 0] = 255
    return mask


def boxes_of(ids: Path) -> Boxes:
    """The box around each nucleus."""
    boxes, numbers = instance_boxes(read_ids(ids))
    return Boxes(boxes, np.zeros(len(numbers), np.int64))
