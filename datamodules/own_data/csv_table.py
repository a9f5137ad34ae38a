"""Own data: a table of images and their classes or values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.core.errors import LayoutError
from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.tables import read_table
from datamodules.own_data.convention import Convention
from datamodules.store.tiling import View
from datamodules.synthetic.scene import append_rows, slides

_TABLE = "table.csv"


@dataclass
class CsvTableOptions:
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
    """

    kind: Literal["auto", "classification", "regression"] = "auto"
    classes: list[str] = field(default_factory=list)
    positive: str = ""
    low: float | None = None
    high: float | None = None
    mpp: float = 0.0
    view: View = View.WHOLE


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
        targets = [row["target"] for row in self._rows(root)]
        if self._kind(targets) == "classification":
            return (self.classification("target", _TABLE, targets),)
        low, high = self.options.low, self.options.high
        return (Task("target", TaskKind.REGRESSION, low=low, high=high),)

    def records(self, root: Path) -> Iterator[Record]:
        """In the order of the table."""
        (task,) = self.tasks_in(root)
        for number, row in enumerate(self._rows(root), start=1):
            image = row["image"]
            where = f"{_TABLE}, row {number} ({image})"
            if not image:
                raise LayoutError(f"{where}: names no image")
            targets = {"target": _target(where, row["target"], task)}
            split, group = row.get("split", "train"), row.get("group", image)
            yield Record(image, root / image, targets, split, group)

    def _rows(self, root: Path) -> list[dict[str, str]]:
        return read_table(root, root / _TABLE, ("image", "target"))

    def _kind(self, targets: list[str]) -> str:
        if self.options.kind != "auto":
            return str(self.options.kind)
        if not all(_is_number(text) for text in targets):
            return "classification"
        if all(text.lstrip("+-").isdigit() for text in targets):
            raise self.option_error(
                "kind",
                "the targets are whole numbers; state whether they are classes "
                "(kind: classification) or values (kind: regression)",
            )
        return "regression"


def _target(where: str, text: str, task: Task) -> int | float:
    if task.kind is TaskKind.CLASSIFICATION:
        if text not in task.classes:
            raise LayoutError(f"{where}: class '{text}', expected one of {', '.join(task.classes)}")
        return task.classes.index(text)
    if not _is_number(text):
        raise LayoutError(f"{where}: target '{text}' is not a number")
    return float(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
