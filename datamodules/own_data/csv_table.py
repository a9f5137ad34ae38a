"""Own data: a table of images and their classes or values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.core.errors import ConfigError, LayoutError
from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import read_table
from datamodules.reader import DatasetReader
from datamodules.store.tiling import Tiler, View
from datamodules.synthetic.scene import Stain, scene

_TABLE = "table.csv"


@dataclass
class CsvTableOptions:
    """Options of `CsvTable`.

    Attributes:
        kind: "classification" or "regression"; "auto" takes names for classes and decimal
            numbers for values, and refuses to guess what whole numbers are.
        classes: names in index order; sorted as found where empty.
        positive: with two classes, the one whose F1 is reported; the last where empty.
        low: smallest possible value; null where there is none.
        high: largest possible value; null where there is none.
        mpp: um per pixel of the images; 0 where unknown.
        view: whole (the image as one patch) or tile (cut into a grid, each tile with the target).
    """

    kind: Literal["auto", "classification", "regression"] = "auto"
    classes: list[str] = field(default_factory=list)
    positive: str = ""
    low: float | None = None
    high: float | None = None
    mpp: float = 0.0
    view: View = View.WHOLE


class CsvTable(DatasetReader):
    """Own data for classification or regression: a table with one image per line.

    Layout:

        table.csv       image,target[,split][,group]
        ...             the images, named in the table relative to this folder

    The task is called "target": a class where `target` is a name, a value where it is a number.
    `split` is train, val or test; without that column all of it is training data. `group` names
    patient or slide; without it every image is its own group, and images of one patient fall
    on both sides of the split.

        my_data: {reader: csv_table, folder: cores, options: {kind: regression, low: 0, high: 1}}
    """

    title = "own images in a table"
    organs = ()
    licence = "yours"
    folder = "csv_table"
    view = View.WHOLE
    tasks = (Task("target", TaskKind.CLASSIFICATION),)
    layout = (_TABLE,)
    grouping = "column group"
    options_type = CsvTableOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Share of tumour cells in patches of patients; the last patients are for the test."""
        patients = max(4, min(20, images // 8))
        each = -(-max(8, images) // patients)
        lines = ["image,target,split,group"]
        for patient in range(patients):
            stain, split = Stain.draw(rng), "test" if patient >= patients * 3 // 4 else "train"
            for number in range(each):
                grade, share = float(rng.uniform(0.3, 1.0)), float(rng.uniform(0.05, 1.0))
                drawn = scene(
                    rng, 256, 256, 0.5, None, grade, 0, 0, stain, "breast", epithelium=share
                )
                name = f"images/{patient:02d}_{number}.png"
                write_image(root / name, drawn.image)
                lines.append(f"{name},{drawn.cellularity:.3f},{split},patient {patient}")
        (root / _TABLE).write_text("\n".join(lines) + "\n")

    def native_mpp(self) -> float:
        """Um per pixel as the options say."""
        return float(self.options.mpp)

    def tiler(self, tasks: tuple[Task, ...]) -> Tiler:
        """Whole images or tiles, as the options say."""
        return replace(super().tiler(tasks), view=self.options.view)

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """One task of the kind that options and table say."""
        options = self.options
        texts = [row["target"] for row in read_table(root, root / _TABLE, ("image", "target"))]
        if self._kind(texts) == "regression":
            return (Task("target", TaskKind.REGRESSION, low=options.low, high=options.high),)
        classes = tuple(options.classes) or tuple(sorted(set(texts)))
        if len(classes) < 2:
            raise LayoutError(f"{_TABLE}: {len(classes)} class, expected at least two")
        positive = options.positive or (classes[-1] if len(classes) == 2 else None)
        if positive is not None and positive not in classes:
            raise ConfigError(
                f"data.*.{self.name}.options.positive: no class '{positive}'; "
                f"known: {', '.join(classes)}"
            )
        return (Task("target", TaskKind.CLASSIFICATION, classes, positive=positive),)

    def records(self, root: Path) -> Iterator[Record]:
        """In the order of the table."""
        task = self.tasks_in(root)[0]
        rows = read_table(root, root / _TABLE, ("image", "target"))
        for number, row in enumerate(rows, start=1):
            where = f"{_TABLE}, row {number} ({row['image']})"
            if not row["image"]:
                raise LayoutError(f"{where}: names no image")
            yield Record(
                source=row["image"],
                image=root / row["image"],
                targets={"target": _target(where, row["target"], task)},
                split=row.get("split", "train"),
                group=row.get("group", row["image"]),
            )

    def _kind(self, texts: list[str]) -> str:
        if self.options.kind != "auto":
            return str(self.options.kind)
        if not all(_is_number(text) for text in texts):
            return "classification"
        if all(text.lstrip("+-").isdigit() for text in texts):
            raise ConfigError(
                f"data.*.{self.name}.options.kind: the targets are whole numbers; say whether "
                "they are classes (kind: classification) or values (kind: regression)"
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
