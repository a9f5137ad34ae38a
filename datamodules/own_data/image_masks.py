"""Own data: images with masks of class indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.core.errors import ConfigError, LayoutError
from datamodules.core.records import Mask, Record, Task, TaskKind
from datamodules.formats.images import list_images, read_mask, write_image
from datamodules.formats.layout import (
    group_of,
    group_pattern,
    nonempty_images,
    published_splits,
    relative,
)
from datamodules.reader import DatasetReader
from datamodules.store.tiling import Tiler, View
from datamodules.synthetic.scene import Stain, scene


@dataclass
class ImageMasksOptions:
    r"""Options of `ImageMasks`.

    Attributes:
        classes: class names in index order, background included.
        group: regular expression with one capture group that finds patient or slide in a file
            name, e.g. "^(patient\d+)"; every image is its own group where empty.
        mpp: um per pixel of the images; 0 where unknown.
        ignore_index: mask value without label.
        foreground: the mask value that means class 1 where masks are black and white (255, say);
            all other values are background then. 0 takes mask values as class indices.
        view: tile (cut into a grid) or whole (the image's centre square as one patch).
    """

    classes: list[str] = field(default_factory=lambda: ["background", "foreground"])
    group: str = ""
    mpp: float = 0.0
    ignore_index: int = 255
    foreground: int = 0
    view: View = View.TILE


class ImageMasks(DatasetReader):
    """Own data for segmentation: images, each with a mask of the same size.

    Layout, directly or below {train,val,test}/:

        images/<stem>.*         PNG, JPEG, TIFF or BMP
        masks/<stem>.png        8 bit, one channel, class index per pixel

    The task is called "mask". Masks in black and white need the option `foreground`: their 255
    is the ignore index otherwise. Grouping: see the option `group`.

        my_data: {reader: image_masks, folder: glands, options: {classes: [background, gland]}}
    """

    title = "own images with masks"
    organs = ()
    licence = "yours"
    folder = "image_masks"
    tasks = (Task("mask", TaskKind.SEGMENTATION),)
    layout = ("**/images", "**/masks")
    grouping = "see option group"
    options_type = ImageMasksOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Glands of patients that the file names tell."""
        patients = max(4, min(20, images // 8))
        each = -(-max(8, images) // patients)
        for patient in range(1, patients + 1):
            stain, grade = Stain.draw(rng), float(rng.uniform(0.0, 0.6))
            for number in range(1, each + 1):
                drawn = scene(rng, 256, 256, malignancy=grade, stain=stain, organ="colon")
                stem = f"patient{patient:02d}_{number}"
                write_image(root / "images" / f"{stem}.png", drawn.image)
                glands = (drawn.glands > 0).astype(np.uint8)
                write_image(root / "masks" / f"{stem}.png", glands)

    def native_mpp(self) -> float:
        """Um per pixel as the options say."""
        return float(self.options.mpp)

    def tiler(self, tasks: tuple[Task, ...]) -> Tiler:
        """Tiles or whole images, as the options say."""
        return replace(super().tiler(tasks), view=self.options.view)

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """One task with the classes of the options."""
        classes = tuple(self.options.classes)
        if len(classes) < 2:
            raise ConfigError(
                f"data.*.{self.name}.options.classes: name at least background and one class"
            )
        ignore = self.options.ignore_index
        return (Task("mask", TaskKind.SEGMENTATION, classes, ignore_index=ignore),)

    def records(self, root: Path) -> Iterator[Record]:
        """Split by split, sorted by file name."""
        pattern = group_pattern(self.options.group)
        for split, folder in published_splits(root):
            images = nonempty_images(root, folder / "images")
            _check_pairs(root, images, list_images(folder / "masks"))
            for path in images:
                mask = folder / "masks" / f"{path.stem}.png"
                yield Record(
                    source=relative(root, path),
                    image=path,
                    targets={"mask": partial(class_mask, mask, self.options.foreground)},
                    split=split,
                    group=group_of(pattern, root, path),
                )


def _check_pairs(root: Path, images: list[Path], masks: list[Path]) -> None:
    stems = Counter(path.stem for path in images)
    twice = next((path for path in images if stems[path.stem] > 1), None)
    if twice is not None:
        raise LayoutError(f"{relative(root, twice)}: another image has the same stem and mask")
    known = {path.stem for path in masks if path.suffix == ".png"}
    for path in images:
        if path.stem not in known:
            raise LayoutError(f"{relative(root, path)}: has no mask masks/{path.stem}.png")
    for path in masks:
        if path.stem not in stems:
            raise LayoutError(f"{relative(root, path)}: has no image of this name")


def class_mask(path: Path, foreground: int) -> Mask:
    """Class index per pixel; where `foreground` is not 0, whether the mask has that value."""
    mask = read_mask(path)
    return (mask == foreground).astype(np.uint8) if foreground else mask
