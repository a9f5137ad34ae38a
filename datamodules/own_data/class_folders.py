"""Own data: one folder of images per class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from datamodules.core.errors import ConfigError, LayoutError
from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import (
    class_images,
    group_of,
    group_pattern,
    published_splits,
    relative,
    subfolders,
)
from datamodules.reader import DatasetReader
from datamodules.store.tiling import Tiler, View
from datamodules.synthetic.scene import Stain, scene


@dataclass
class ClassFoldersOptions:
    r"""Options of `ClassFolders`.

    Attributes:
        classes: names of the class folders in index order; sorted as found where empty.
        group: regular expression with one capture group that finds patient or slide in a file
            name, e.g. "^(patient\d+)"; every image is its own group where empty.
        positive: with two classes, the one whose F1 is reported; the last where empty.
        mpp: um per pixel of the images; 0 where unknown.
        view: whole (the image as one patch) or tile (cut into a grid, each tile with the label).
    """

    classes: list[str] = field(default_factory=list)
    group: str = ""
    positive: str = ""
    mpp: float = 0.0
    view: View = View.WHOLE


class ClassFolders(DatasetReader):
    r"""Own data for classification: a folder of images for every class.

    Layout:

        <class>/<file>                      all of it is training data
        {train,val,test}/<class>/<file>     or in published splits

    The task is called "class". Images may be PNG, JPEG, TIFF or BMP; other files are passed over.
    Grouping: say with the option `group` how a file name tells the patient, otherwise images of
    one patient fall on both sides of the split.

        my_data: {reader: class_folders, folder: glands, options: {group: '^(patient\d+)'}}
    """

    title = "own images in class folders"
    organs = ()
    licence = "yours"
    folder = "class_folders"
    view = View.WHOLE
    tasks = (Task("class", TaskKind.CLASSIFICATION),)
    layout = ("*/*",)
    grouping = "see option group"
    options_type = ClassFoldersOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Benign and malignant glands of patients that the file names tell."""
        patients = max(4, min(20, images // 8))
        each = -(-max(8, images) // patients)
        for patient in range(1, patients + 1):
            malignant, stain = patient % 2, Stain.draw(rng)
            for number in range(1, each + 1):
                grade = float(rng.uniform(0.5, 1.0) if malignant else rng.uniform(0.0, 0.2))
                drawn = scene(rng, 256, 256, 0.5, None, grade, stain=stain, epithelium=0.6)
                name = "malignant" if malignant else "benign"
                write_image(root / name / f"patient{patient:02d}_{number}.png", drawn.image)

    def native_mpp(self) -> float:
        """Um per pixel as the options say."""
        return float(self.options.mpp)

    def tiler(self, tasks: tuple[Task, ...]) -> Tiler:
        """Whole images or tiles, as the options say."""
        return replace(super().tiler(tasks), view=self.options.view)

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """One task with the classes of the options or the folders that are there."""
        classes = self._classes(root)
        positive = self.options.positive or (classes[-1] if len(classes) == 2 else None)
        if positive is not None and positive not in classes:
            raise ConfigError(
                f"data.*.{self.name}.options.positive: no class '{positive}'; "
                f"known: {', '.join(classes)}"
            )
        return (Task("class", TaskKind.CLASSIFICATION, classes, positive=positive),)

    def records(self, root: Path) -> Iterator[Record]:
        """Split by split, class by class, sorted by file name."""
        pattern, classes = group_pattern(self.options.group), self._classes(root)
        for split, folder in published_splits(root):
            for path, label in class_images(root, folder, classes):
                group = group_of(pattern, root, path)
                yield Record(relative(root, path), path, {"class": label}, split, group)

    def _classes(self, root: Path) -> tuple[str, ...]:
        if self.options.classes:
            return tuple(self.options.classes)
        found = {path.name for _, top in published_splits(root) for path in subfolders(top)}
        if len(found) < 2:
            raise LayoutError(f"{root}: {len(found)} class folders, expected at least two")
        return tuple(sorted(found))
