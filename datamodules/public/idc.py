"""IDC: invasive ductal carcinoma of the breast, small patches."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import cv2
import numpy as np

from datamodules.core import notes
from datamodules.core.config_ranges import limited
from datamodules.core.errors import LayoutError
from datamodules.core.options import ReaderOptions
from datamodules.core.records import Archive, Image, Record, Task, TaskKind
from datamodules.formats.images import image_size, read_image, write_image
from datamodules.formats.layout import layout_error, list_images, named, relative, subfolders
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View, resize_image
from datamodules.synthetic.scene import slides
from datamodules.synthetic.tissues import Tissue

SIDE = 50
CLASSES = ("non-invasive", "invasive")
_NESTED = "IDC_regular_ps50_idx5"
_NAME = re.compile(r"(\d+)_idx5_x(\d+)_y(\d+)_class([01])\.png")


@dataclass
class IDCOptions(ReaderOptions):
    """Options of `IDC`.

    Attributes:
        smallest_side: patches of a slide's edge that are narrower, in pixels, are left out and
            counted; 1 takes them all.
    """

    smallest_side: int = limited(25, 1, SIDE, later=True)


class IDC(DatasetReader):
    """IDC: patches of whole slides of invasive ductal carcinoma of the breast.

    198,738 negative and 78,786 positive patches of 279 patients, at 2.5x: nuclei are not
    resolved, tissue architecture is.

    Layout:

        <patient>/{0,1}/<patient>_idx5_x<X>_y<Y>_class<c>.png
        IDC_regular_ps50_idx5/<patient>/...      the same files once more, in some archives

    Split: none is published here.
    Quirks: the class stands in the file name and in the folder. The archive of Kaggle holds every
    file twice, in other copies the files are spread over both places; a file name is read once.
    Patches at a slide's edge are smaller, down to 1x50 px: those below `smallest_side` are left
    out (12 of 4,961 patches of two partial copies), the others are filled up to 50x50 px by
    mirroring. A few patients may lack one of the class folders.
    """

    title = "IDC breast histopathology patches"
    organs = ("breast",)
    licence = "CC0 as stated on its Kaggle page"
    citation = (
        "Cruz-Roa et al.: Automatic detection of invasive ductal carcinoma in whole slide images "
        "with convolutional neural networks. SPIE Medical Imaging (2014). doi:10.1117/12.2043872"
    )
    homepage = "https://www.kaggle.com/datasets/paultimothymooney/breast-histopathology-images"
    sources = ("IDC Cruz-Roa breast",)
    archives = (
        # [K] The author's copy; its checksum was found by one other program.
        Archive("https://andrewjanowczyk.com/wp-static/IDC_regular_ps50_idx5.zip"),
    )
    obtain = f"get the archive from {homepage} (login needed)"
    images = 277_524
    extent = (50, 50)
    disk_gb = 3.2
    download_gb = 1.6
    mpp = 4.0
    patch_size = SIDE
    view = View.WHOLE
    tasks = (Task("invasive", TaskKind.CLASSIFICATION, CLASSES, positive="invasive"),)
    layout = ("**/*_idx5_*_class?.png",)
    options_type = IDCOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Patients with both classes, an edge patch each; the first patient lies there twice."""
        for index, number, slide in slides(rng, images, ["breast"], 1.0, each=10):
            label, height = number % 2, 32 if number == index % 2 else SIDE
            plain = (None, Tissue.STROMA, Tissue.ADIPOSE, None)[rng.integers(4)]
            grade, share = ((0.5, 1.0), (0.5, 1.0)) if label else (0.0, None)
            drawn = slide.field(4 * height, 4 * SIDE, None if label else plain, grade, share)
            patient, x, y = 8800 + 17 * index, 51 + 50 * (number % 20), 1 + 50 * (number // 20)
            name = f"{patient}/{label}/{patient}_idx5_x{x}_y{y}_class{label}.png"
            for top in (root, root / _NESTED) if index == 0 else (root,):
                write_image(top / name, resize_image(drawn.image, (height, SIDE)))

    def records(self, root: Path) -> Iterator[Record]:
        """Patient by patient, each file name once, sorted by file name."""
        nested = root / _NESTED
        tops = [root, nested] if nested.is_dir() else [root]
        folders = [folder for top in tops for folder in subfolders(top) if folder != nested]
        name_of = attrgetter("name")
        for patient, places in groupby(sorted(folders, key=name_of), name_of):
            files = {path.name: path for folder in places for path in _patches(root, folder)}
            for path in sorted(files.values(), key=name_of):
                match = named(_NAME, root, path, "<patient>_idx5_x<X>_y<Y>_class<c>.png")
                if match[1] != patient:
                    problem = f"named after patient {match[1]}, but lies in the folder of {patient}"
                    raise layout_error(root, path, problem)
                if path.parent.name != match[4]:
                    problem = f"named class {match[4]}, but lies in folder {path.parent.name}"
                    raise layout_error(root, path, problem)
                if min(image_size(path)) < self.options.smallest_side:
                    notes.skipped(relative(root, path), "narrower than smallest_side")
                    continue
                targets = {"invasive": int(match[4])}
                image = partial(padded, path)
                yield Record(relative(root, path), image, targets, "train", patient)


def _patches(root: Path, folder: Path) -> list[Path]:
    paths = [path for label in subfolders(folder) for path in list_images(label)]
    if not paths:
        raise layout_error(root, folder, "the patient's folder holds no image")
    return paths


def padded(path: Path) -> Image:
    """A patch of 50x50 px; smaller ones of a slide's edge are continued by their mirror image."""
    image = read_image(path)
    down, right = SIDE - image.shape[0], SIDE - image.shape[1]
    if down < 0 or right < 0:
        raise LayoutError(f"{path}: {image.shape[1]}x{image.shape[0]} px, expected at most 50x50")
    mirrored = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REFLECT)
    return np.asarray(mirrored, np.uint8)
