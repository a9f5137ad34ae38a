"""Own data: images with masks of class indices."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.core.config_ranges import limited
from datamodules.core.errors import LayoutError
from datamodules.core.notes import warning
from datamodules.core.options import MPP_MAX, ReaderOptions
from datamodules.core.records import Mask, Record, Task, TaskKind
from datamodules.formats.images import MASK_SUFFIXES, mask_palette, read_ids, read_mask, write_image
from datamodules.formats.layout import (
    image_record,
    layout_error,
    list_files,
    nonempty_images,
    paired,
    relative,
)
from datamodules.own_data.convention import Convention
from datamodules.store.tiling import View
from datamodules.synthetic.scene import slides


@dataclass
class ImageMasksOptions(ReaderOptions):
    r"""Options of `ImageMasks`.

    Attributes:
        classes: class names in index order, background included.
        group: regular expression with one capture group for the patient or slide in a file
            name, e.g. "^(patient\d+)"; every image is its own group where empty.
        mpp: µm per pixel of the images; 0 where unknown.
        ignore_index: mask value without label.
        foreground: the mask value that means class 1 in black-and-white masks (usually 255);
            all other values are then background. 0 reads mask values as class indices.
        view: tile (cut into a grid) or whole (the image's centre square as one patch).
    """

    classes: list[str] = field(default_factory=lambda: ["background", "foreground"])
    group: str = ""
    mpp: float = limited(0.0, 0, MPP_MAX)
    ignore_index: int = limited(255, 0, 255)
    foreground: int = limited(0, 0, 255)
    view: View = View.TILE


class ImageMasks(Convention):
    """Own data for segmentation: images, each with a mask of the same size.

    Layout, directly or below {train,val,test}/:

        images/<stem>.*         PNG, JPEG, TIFF, BMP, WebP or GIF
        masks/<stem>.png        or .tif, .bmp: 8 bit, one channel, class index per pixel

    Black-and-white masks need the option `foreground`; otherwise their 255 is the ignore index.
    In masks of one bit, or with a palette of black and white, white is class 1. A palette of
    colours must be the same in all masks; its indices are the classes.

        my_data: {reader: image_masks, folder: glands, options: {classes: [background, gland]}}
    """

    title = "own images with masks"
    folder = "image_masks"
    tasks = (Task("mask", TaskKind.SEGMENTATION),)
    layout = ("**/images", "**/masks")
    options_type = ImageMasksOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Glands of patients that the file names tell."""
        for patient, number, slide in slides(rng, images):
            drawn = slide.field(256, malignancy=(0.0, 0.6))
            name = f"patient{patient:02d}_{number}.png"
            write_image(root / "images" / name, drawn.image)
            write_image(root / "masks" / name, (drawn.glands > 0).astype(np.uint8))

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """One task with the classes of the options."""
        classes = tuple(self.options.classes)
        if len(classes) < 2:
            raise self.option_error("classes", "name at least background and one class")
        self.check_distinct(classes)
        ignore = self.options.ignore_index
        return (Task("mask", TaskKind.SEGMENTATION, classes, ignore_index=ignore),)

    def records(self, root: Path) -> Iterator[Record]:
        """Split by split, sorted by file name."""
        for split, folder in self.splits(root):
            images = nonempty_images(root, folder / "images")
            masks = list_files(folder / "masks", MASK_SUFFIXES)
            _check_palettes(root, masks)
            expected = f"{relative(root, folder / 'masks')}/{{}}.png"
            for path, mask in paired(root, images, masks, expected, self.options.allow_missing):
                targets = {"mask": partial(class_mask, mask, self.options.foreground)}
                yield image_record(root, path, targets, split, self.group_of(root, path))


def class_mask(path: Path, foreground: int) -> Mask:
    """Class index per pixel; where `foreground` is not 0, whether the mask has that value."""
    if not foreground:
        return read_mask(path)
    mask = read_ids(path, white=foreground)
    found = (mask == foreground).astype(np.uint8)
    others = np.unique(mask[(mask != 0) & (found == 0)]).tolist()
    if others and not found.any():
        raise LayoutError(f"{path}: mask holds {others[:5]}, never options.foreground {foreground}")
    if others:
        warning(path, "values besides 0 and the foreground, read as background")
    return np.asarray(found, np.uint8)


def _check_palettes(root: Path, masks: list[Path]) -> None:
    """Indices mean the same in all masks only if their colours do."""
    first, colours = None, b""
    for path in masks:
        palette = mask_palette(path)
        shared = min(len(palette), len(colours))
        if palette[:shared] != colours[:shared] and first:
            problem = f"has another palette than {relative(root, first)}; save both as 8-bit grey"
            raise layout_error(root, path, problem)
        if len(palette) > len(colours):
            first, colours = path, palette
