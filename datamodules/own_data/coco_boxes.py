"""Own data: images with boxes in COCO's JSON."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.core.config_ranges import LATER, limited
from datamodules.core.notes import collecting
from datamodules.core.options import MPP_MAX, ReaderOptions
from datamodules.core.records import Boxes, Record, Task, TaskKind
from datamodules.formats.coco import Coco, CocoImage, read_coco
from datamodules.formats.images import write_image
from datamodules.formats.layout import layout_error, note_unlisted
from datamodules.formats.text_files import label
from datamodules.own_data.convention import Convention
from datamodules.synthetic.scene import slides
from datamodules.synthetic.tissues import NucleusType

_TABLE = "annotations.json"
_ROUNDING = 1.0  # pixels: drawing tools round boxes at the image's edge


@dataclass
class CocoBoxesOptions(ReaderOptions):
    r"""Options of `CocoBoxes`.

    Attributes:
        classes: names of categories in index order; in order of their ids where empty.
        positive: the class that counts where the others are look-alikes.
        group: regular expression with one capture group for the patient or slide in a file
            name, e.g. "^(patient\d+)"; every image is its own group where empty.
        mpp: µm per pixel of the images; 0 where unknown.
        object_size_um: typical diameter of an object in µm.
        match_distance_um: a prediction counts when its centre is this near to an object's.
        empty_share: share of the training tiles without any object that is kept.
        allow_outside: read images whose names in the JSON leave the folder images.
    """

    classes: list[str] = field(default_factory=list)
    positive: str = ""
    group: str = ""
    mpp: float = limited(0.0, 0, MPP_MAX)
    object_size_um: float = limited(10.0, 0.1, 10_000)
    match_distance_um: float = limited(7.5, 0.1, 10_000)
    empty_share: float = limited(1.0, 0, 1)
    allow_outside: bool = field(default=False, metadata=LATER)


class CocoBoxes(Convention):
    r"""Own data for detection: images with boxes in COCO's JSON.

    Layout, directly or below {train,val,test}/:

        annotations.json        images (id, file_name), categories (id, name),
                                annotations (image_id, category_id, bbox [x, y, width, height])
        images/<file_name>      PNG, JPEG, TIFF, BMP, WebP or GIF

    Boxes refer to the image as displayed, turned as its EXIF orientation says, and to the size in
    the JSON if one stands there. Every image in the JSON must exist; one without annotations holds
    no object. Regions marked iscrowd are refused, because they are not single objects.

        my_data: {reader: coco_boxes, folder: cells, options: {group: '^(patient\d+)', mpp: 0.25}}
    """

    title = "own images with boxes"
    folder = "coco_boxes"
    tasks = (Task("boxes", TaskKind.DETECTION),)
    layout = (f"**/{_TABLE}", "**/images")
    options_type = CocoBoxesOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Tumour cells and other cells of patients that the file names tell."""
        entries: list[dict[str, Any]] = []
        notes: list[dict[str, Any]] = []
        for index, (patient, number, slide) in enumerate(slides(rng, images, ["breast"])):
            drawn = slide.field(256, malignancy=(0.4, 1.0))
            name = f"patient{patient:02d}_{number}.png"
            write_image(root / "images" / name, drawn.image)
            entries.append({"id": index, "file_name": name, "width": 256, "height": 256})
            kinds = np.where(drawn.nucleus_types == NucleusType.NEOPLASTIC, 1, 2).tolist()
            for (x1, y1, x2, y2), kind in zip(drawn.boxes().tolist(), kinds, strict=True):
                note = {"category_id": kind, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                notes.append({"id": len(notes), "image_id": index, **note})
        categories = [{"id": 1, "name": "tumour cell"}, {"id": 2, "name": "other cell"}]
        table = {"images": entries, "categories": categories, "annotations": notes}
        (root / _TABLE).write_text(json.dumps(table))

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """One task with the classes of the options or the categories of the JSON."""
        options = self.options
        with collecting():  # what is odd is noted when the records are read
            tables = {top / _TABLE: self._table(root, top) for _, top in self.splits(root)}
        first = next(iter(tables.values())).categories
        for path, table in tables.items():
            if set(table.categories) != set(first):
                problem = f"categories {', '.join(table.categories)}; others: {', '.join(first)}"
                raise layout_error(root, path, problem)
        classes = tuple(options.classes) or first
        if not classes or set(classes) != set(first):
            problem = f"{', '.join(classes) or 'none'}; the JSON has {', '.join(first) or 'none'}"
            raise self.option_error("classes", problem)
        self.check_distinct(classes)
        task = Task(
            *("boxes", TaskKind.DETECTION, classes),
            positive=self.positive_of(classes),
            object_size_um=options.object_size_um,
            match_distance_um=options.match_distance_um,
        )
        return (task,)

    def records(self, root: Path) -> Iterator[Record]:
        """Split by split, in order of the image ids."""
        (task,) = self.tasks_in(root)
        for split, top in self.splits(root):
            table = self._table(root, top)
            for number, entry in sorted(table.images.items(), key=lambda i: str(i[0]).zfill(20)):
                path = top / "images" / entry.name
                boxes = {"boxes": _boxes(table.objects.get(number, []), entry, task.classes)}
                source = label(root, path)
                group = self.group_of(root, path) if self.options.group else source
                yield Record(source, path, boxes, split, group, size=entry.size)
            listed = {image.name for image in table.images.values()}
            note_unlisted(root, top / "images", listed, _TABLE)

    def _table(self, root: Path, top: Path) -> Coco:
        return read_coco(root, top / _TABLE, allow_outside=self.options.allow_outside)


def _boxes(
    objects: list[tuple[list[float], str]], entry: CocoImage, classes: tuple[str, ...]
) -> Boxes:
    """Boxes as an array; rounding errors at the image's edge are clipped."""
    xyxy = np.array([box for box, _ in objects], np.float64).reshape(-1, 4)
    if entry.size:
        edge = np.array([*entry.size[::-1]] * 2, np.float64)
        clipped = xyxy.clip(0, edge)
        xyxy = np.where(np.abs(clipped - xyxy) <= _ROUNDING, clipped, xyxy)
    labels = np.array([classes.index(name) for _, name in objects], np.int64)
    return Boxes(xyxy.astype(np.float32), labels)
