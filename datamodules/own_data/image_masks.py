"""Own data: images with masks of class indices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.core.records import Mask, Record, Task, TaskKind
from datamodules.formats.images import list_images, read_mask, write_image
from datamodules.formats.layout import image_record, nonempty_images, paired, relative
from datamodules.own_data.convention import Convention
from datamodules.store.tiling import View
from datamodules.synthetic.scene import slides


@dataclass
class ImageMasksOptions:
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
    mpp: float = 0.0
    ignore_index: int = 255
    foreground: int = 0
    view: View = View.TILE


class ImageMasks(Convention):
    """Own data for segmentation: images, each with a mask of the same size.

    Layout, directly or below {train,val,test}/:

        images/<stem>.*         PNG, JPEG, TIFF or BMP
        masks/<stem>.png        8 bit, one channel, class index per pixel

    Black-and-white masks need the option `foreground`; otherwise their 255 is the ignore index.

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
        ignore = self.options.ignore_index
        return (Task("mask", TaskKind.SEGMENTATION, classes, ignore_index=ignore),)

    def records(self, root: Path) -> Iterator[Record]:
        """Split by split, sorted by file name."""
        for split, folder in self.splits(root):
            images = nonempty_images(root, folder / "images")
            masks = [path for path in list_images(folder / "masks") if path.suffix == ".png"]
            expected = f"{relative(root, folder / 'masks')}/{{}}.png"
            for path, mask in paired(root, images, masks, expected):
                targets = {"mask": partial(class_mask, mask, self.options.foreground)}
                yield image_record(root, path, targets, split, self.group_of(root, path))


def class_mask(path: Path, foreground: int) -> Mask:
    """Class index per pixel; where `foreground` is not 0, whether the mask has that value."""
    mask = read_mask(path)
    return (mask == foreground).astype(np.uint8) if foreground else mask
