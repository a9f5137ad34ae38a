"""Own data: a table of images and their classes or values."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.core import notes
from datamodules.core.config_ranges import LATER, limited
from datamodules.core.notes import collecting
from datamodules.core.options import MPP_MAX, ReaderOptions
from datamodules.core.records import SPLITS, Record, Task, TaskKind
from datamodules.formats.cells import MISSING, shown
from datamodules.formats.images import write_image
from datamodules.formats.layout import relative, walk_images
from datamodules.formats.row import Row
from datamodules.formats.tables import read_table
from datamodules.own_data.convention import Convention
from datamodules.store.tiling import View
from datamodules.synthetic.scene import append_rows, slides

_TABLE = "table.csv"
_HUGE = 1e30


@dataclass
class CsvTableOptions(ReaderOptions):
    """Options of `CsvTable`.

    Attributes:
        kind: "classification" or "regression"; "auto" reads names as classes and decimal
            numbers as values, and refuses to guess what whole numbers are.
        classes: names in index order; all in the table, sorted, where empty.
        positive: with two classes, the one whose F1 is reported; the last where empty.
        low: smallest possible value; null where there is none.
        high: largest possible value; null where there is none.
        mpp: µm per pixel of the images; 0 where unknown.
        view: whole (the image as one patch) or tile (cut into a grid, each tile with the target).
        allow_outside: read images whose names in the table leave the folder.
    """

    kind: Literal["auto", "classification", "regression"] = "auto"
    classes: list[str] = field(default_factory=list)
    positive: str = ""
    low: float | None = limited(None, -_HUGE, _HUGE)
    high: float | None = limited(None, -_HUGE, _HUGE)
    mpp: float = limited(0.0, 0, MPP_MAX)
    view: View = View.WHOLE
    allow_outside: bool = field(default=False, metadata=LATER)


class CsvTable(Convention):
    """Own data for classification or regression: a table with one image per line.

    Layout:

        table.csv       image,target[,split][,group]
        ...             the images, named in the table relative to this folder

    A `target` is the name of a class or a number. `split` is train, val or test; without that
    column all images are training data. `group` names patient or slide; without it every image
    is its own group, and images of one patient end up on both sides of a split.

        my_data: {reader: csv_table, folder: cores, options: {kind: regression, low: 0, high: 1}}
    """

    title = "own images in a table"
    folder = "csv_table"
    view = View.WHOLE
    tasks = (Task("target", TaskKind.CLASSIFICATION),)
    layout = (_TABLE,)
    grouping = "column group"
    options_type = CsvTableOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Share of tumour cells in patches of patients; every fourth patient is for the test."""
        append_rows(root / _TABLE, ("image", "target", "split", "group"))
        for patient, number, slide in slides(rng, images, ["breast"]):
            drawn = slide.field(256, malignancy=(0.3, 1.0), epithelium=(0.05, 1.0))
            name, split = f"images/{patient:02d}_{number}.png", "train" if patient % 4 else "test"
            write_image(root / name, drawn.image)
            row = (name, f"{drawn.cellularity:.3f}", split, f"patient {patient}")
            append_rows(root / _TABLE, row)

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """One task of the kind that options and table determine."""
        with collecting():  # what is odd is noted when the records are read
            rows = self._rows(root)
        if self._kind(rows) == "classification":
            return (self.classification("target", _TABLE, self._classes(rows)),)
        low, high = self.options.low, self.options.high
        if low is not None and high is not None and low >= high:
            raise self.option_error("low", f"{low:g} is not below high, {high:g}")
        return (Task("target", TaskKind.REGRESSION, low=low, high=high),)

    def records(self, root: Path) -> Iterator[Record]:
        """In the order of the table."""
        (task,) = self.tasks_in(root)
        lines: dict[str, str] = {}
        for row in self._rows(root):
            name = row.file("image", self.options.allow_outside)
            if lines.setdefault(name, row.where) != row.where:
                raise row.error("image", f"{name} stands in {lines[name]} too; keep one")
            split = row.text("split", "train")
            if split not in SPLITS:
                raise row.error("split", f"'{shown(split)}', expected {', '.join(SPLITS)}")
            group = self._group(row, name)
            yield Record(name, root / name, {"target": _target(row, task)}, split, group)
        for path in walk_images(root):
            if relative(root, path) not in lines:
                notes.skipped(relative(root, path), f"image that {_TABLE} does not list")

    def _rows(self, root: Path) -> list[Row]:
        return read_table(root, root / _TABLE, ("image", "target"), ("split", "group"), own=True)

    def _group(self, row: Row, name: str) -> str:
        group = row.text("group", name)
        if group.casefold() in MISSING:
            raise row.error("group", f"'{group}' tells no patient or slide")
        return group

    def _classes(self, rows: list[Row]) -> list[str]:
        for row in rows:
            if row["target"].casefold() in MISSING and not self.options.classes:
                remedy = "if it is a class, name all classes in the option classes"
                raise row.error("target", f"'{row['target']}' is a missing value; {remedy}")
        return [row["target"] for row in rows]

    def _kind(self, rows: list[Row]) -> str:
        if self.options.kind != "auto":
            return str(self.options.kind)
        numbers = [row for row in rows if _is_number(row["target"])]
        if not numbers:
            return "classification"
        for row in rows:
            if not _is_number(row["target"]):
                remedy = "mend it or state the option kind"
                raise row.error("target", f"'{shown(row['target'])}' among numbers; {remedy}")
        if all(row["target"].lstrip("+-").isdigit() for row in rows):
            problem = "the targets are whole numbers; state whether they are classes"
            choice = "(kind: classification) or values (kind: regression)"
            raise self.option_error("kind", f"{problem} {choice}")
        return "regression"


def _target(row: Row, task: Task) -> int | float:
    if task.kind is TaskKind.REGRESSION:
        low, high = task.low, task.high
        return row.number("target", -_HUGE if low is None else low, _HUGE if high is None else high)
    if row["target"] not in task.classes:
        problem = f"class '{shown(row['target'])}', expected one of {', '.join(task.classes)}"
        raise row.error("target", problem)
    return task.classes.index(row["target"])


def _is_number(text: str) -> bool:
    """Whether a text is a number, also one that is written in a wrong way, such as 0,5."""
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return text.casefold() not in MISSING
