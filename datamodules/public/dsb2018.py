"""Data Science Bowl 2018, stage 1: the stained tissue among its images."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.core import notes
from datamodules.core.errors import LayoutError
from datamodules.core.records import Archive, Mask, Record, Task, TaskKind
from datamodules.formats.annotations import foreground
from datamodules.formats.images import read_image, write_image
from datamodules.formats.layout import (
    image_record,
    layout_error,
    list_files,
    nonempty_images,
    relative,
    subfolders,
)
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import slides

_TOP = "stage1_train"
COLOURFUL = 10.0
"""Mean difference of the brightest and darkest channel, in grey levels, from which an image counts
as stained tissue. Fluorescence is grey (0); the least colourful stained image known has 17.7."""


class DSB2018(DatasetReader):
    """Data Science Bowl 2018 stage 1 (BBBC038), the H&E-like part: nuclei.

    About a hundred colour images of purple-stained tissue among 664 training images, the rest
    of which is fluorescence. Sizes vary.

    Layout:

        stage1_train/<id>/images/<id>.png     RGBA
        stage1_train/<id>/masks/*.png         one nucleus each, 0 and 255

    Split: all of it is training; the stages' test sets are not read.
    Grouping: no slide or patient is published; fields of one slide can lie on both sides of a
    split.
    Quirks: stained images are not marked; an image counts as stained when its channels differ
    (see `COLOURFUL`). A corrected copy of the masks circulates (github.com/lopuhin/
    kaggle-dsbowl-2018-dataset-fixes); it has the same layout. The union of the masks is the
    target, so touching nuclei become one region.
    """

    title = "Data Science Bowl 2018, stained tissue of stage 1"
    organs = ("various",)
    licence = "CC0"
    commercial = True
    citation = (
        "Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science "
        "Bowl. Nature Methods 16 (2019). doi:10.1038/s41592-019-0612-7"
    )
    homepage = "https://bbbc.broadinstitute.org/BBBC038"
    sources = ("BBBC038",)
    archives = (
        Archive("https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip", into=_TOP),
    )
    images = 99
    extent = (320, 256)
    disk_gb = 0.1
    download_gb = 0.08
    tasks = (Task("nuclei", TaskKind.SEGMENTATION, ("background", "nucleus")),)
    layout = (_TOP,)
    grouping = "image"

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """RGBA fields with one mask a nucleus; every eighth is grey fluorescence, to be skipped."""
        organs = ("breast", "colon", "liver", "kidney", "bladder")
        # Larger nuclei than at the usual 0.5 µm/px: fewer of them, as in the real images.
        for index, _, slide in slides(rng, images, organs, 0.3, each=1):
            folder = root / _TOP / rng.bytes(32).hex()
            drawn = slide.field(256, 320 if index % 3 else 256, malignancy=(0.0, 1.0))
            grey = 255 - drawn.image.min(axis=2, keepdims=True).repeat(3, axis=2)
            image = grey if index % 8 == 7 else drawn.image
            rgba = np.pad(image, ((0, 0), (0, 0), (0, 1)), constant_values=255)
            write_image(folder / "images" / f"{folder.name}.png", rgba)
            for number in range(1, len(drawn.nucleus_types) + 1):
                mask = (drawn.nuclei == number).astype(np.uint8) * 255
                write_image(folder / "masks" / f"{rng.bytes(32).hex()}.png", mask)

    def records(self, root: Path) -> Iterator[Record]:
        """Sorted by image id; each image is decoded once to see whether it is stained."""
        for folder in subfolders(root / _TOP):
            path, masks = folder / "images" / f"{folder.name}.png", folder / "masks"
            if not path.is_file():
                raise layout_error(root, path, "no such image")
            if not masks.is_dir():
                raise layout_error(root, masks, "no such folder of masks")
            if not is_stained(path):
                notes.skipped(relative(root, path), "fluorescence or grey, not stained tissue")
                continue
            nonempty_images(root, masks)
            yield image_record(root, path, {"nuclei": partial(union, masks)})


def is_stained(path: Path) -> bool:
    """Whether an image shows stained tissue rather than fluorescence."""
    image = read_image(path)
    return float((image.max(axis=2) - image.min(axis=2)).mean()) >= COLOURFUL


def union(folder: Path) -> Mask:
    """Background and nucleus from a folder of one-nucleus masks, which must be of one size."""
    paths = list_files(folder, {".png"})
    if not paths:
        raise LayoutError(f"{folder}: the folder holds no mask")
    nuclei = foreground(paths[0])
    for path in paths[1:]:
        mask = foreground(path)
        if nuclei.shape != mask.shape:
            sizes = [f"{width}x{height} px" for height, width in (mask.shape, nuclei.shape)]
            raise LayoutError(f"{path}: {sizes[0]}, the masks before it have {sizes[1]}")
        nuclei |= mask
    return nuclei
