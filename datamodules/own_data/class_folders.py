"""Own data: one folder of images per class."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datamodules.core.config_ranges import limited
from datamodules.core.options import MPP_MAX, ReaderOptions
from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import class_images, image_record, subfolders
from datamodules.own_data.convention import Convention
from datamodules.store.tiling import View
from datamodules.synthetic.scene import slides


@dataclass
class ClassFoldersOptions(ReaderOptions):
    r"""Options of `ClassFolders`.

    Attributes:
        classes: names of the class folders in index order; all that exist, sorted, where empty.
        group: regular expression with one capture group for the patient or slide in a file
            name, e.g. "^(patient\d+)"; every image is its own group where empty.
        positive: with two classes, the one whose F1 is reported; the last where empty.
        mpp: µm per pixel of the images; 0 where unknown.
        view: whole (the image as one patch) or tile (cut into a grid, each tile with the label).
    """

    classes: list[str] = field(default_factory=list)
    group: str = ""
    positive: str = ""
    mpp: float = limited(0.0, 0, MPP_MAX)
    view: View = View.WHOLE


class ClassFolders(Convention):
    r"""Own data for classification: a folder of images for every class.

    Layout:

        <class>/<file>                      all images are training data
        {train,val,test}/<class>/<file>     or lie in published splits

    Images may be PNG, JPEG, TIFF, BMP, WebP or GIF; other files are skipped, and counted. Without
    the option `group`, images of one patient end up on both sides of a split.

        my_data: {reader: class_folders, folder: glands, options: {group: '^(patient\d+)'}}
    """

    title = "own images in class folders"
    folder = "class_folders"
    view = View.WHOLE
    tasks = (Task("class", TaskKind.CLASSIFICATION),)
    layout = ("*/*",)
    options_type = ClassFoldersOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Benign and malignant glands of patients that the file names tell."""
        for patient, number, slide in slides(rng, images):
            name, grade = (("benign", (0.0, 0.2)), ("malignant", (0.5, 1.0)))[patient % 2]
            drawn = slide.field(256, malignancy=grade, epithelium=0.6)
            write_image(root / name / f"patient{patient:02d}_{number}.png", drawn.image)

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """One task with the classes of the options or of the existing folders."""
        folders = [path for _, top in self.splits(root) for path in subfolders(top)]
        return (self.classification("class", str(root), [path.name for path in folders]),)

    def records(self, root: Path) -> Iterator[Record]:
        """Split by split, class by class, sorted by file name."""
        (task,) = self.tasks_in(root)
        for split, folder in self.splits(root):
            complete = not self.options.allow_missing
            for path, label in class_images(root, folder, task.classes, complete):
                yield image_record(root, path, {"class": label}, split, self.group_of(root, path))
