"""Own data: images with boxes in COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.core.errors import ConfigError, DatasetNotFoundError, LayoutError
from datamodules.core.records import Boxes, Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.formats.layout import group_of, group_pattern, published_splits, relative
from datamodules.reader import DatasetReader
from datamodules.store.tiling import Tiler
from datamodules.synthetic.scene import NucleusType, Stain, scene

_TABLE = "annotations.json"
_ROUNDING = 1.0  # pixels: drawing tools round boxes at the image's edge


@dataclass
class CocoBoxesOptions:
    r"""Options of `CocoBoxes`.

    Attributes:
        classes: names of categories in index order; in order of their ids where empty.
        positive: the class that counts where the others are look-alikes.
        group: regular expression with one capture group that finds patient or slide in a file
            name, e.g. "^(patient\d+)"; every image is its own group where empty.
        mpp: um per pixel of the images; 0 where unknown.
        object_size_um: typical diameter of an object in um.
        match_distance_um: a prediction counts when its centre is this near to an object's.
        empty_share: share of the training tiles without any object that is kept.
    """

    classes: list[str] = field(default_factory=list)
    positive: str = ""
    group: str = ""
    mpp: float = 0.0
    object_size_um: float = 10.0
    match_distance_um: float = 7.5
    empty_share: float = 1.0


class CocoBoxes(DatasetReader):
    r"""Own data for detection: images with boxes in COCO's JSON.

    Layout, directly or below {train,val,test}/:

        annotations.json        images (id, file_name), categories (id, name),
                                annotations (image_id, category_id, bbox [x, y, width, height])
        images/<file_name>      PNG, JPEG, TIFF or BMP

    The task is called "boxes". Every image in the JSON must be there; one without annotations
    holds no object. Regions marked iscrowd are refused, because they are no single objects.
    Grouping: see the option `group`.

        my_data: {reader: coco_boxes, folder: cells, options: {group: '^(patient\d+)', mpp: 0.25}}
    """

    title = "own images with boxes"
    organs = ()
    licence = "yours"
    folder = "coco_boxes"
    tasks = (Task("boxes", TaskKind.DETECTION),)
    layout = (f"**/{_TABLE}", "**/images")
    grouping = "see option group"
    options_type = CocoBoxesOptions

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Tumour cells and other cells of patients that the file names tell."""
        patients = max(4, min(20, images // 8))
        each = -(-max(8, images) // patients)
        entries: list[dict[str, Any]] = []
        notes: list[dict[str, Any]] = []
        for index in range(patients * each):
            if index % each == 0:
                stain, grade = Stain.draw(rng), float(rng.uniform(0.4, 1.0))
            drawn = scene(rng, 256, 256, malignancy=grade, stain=stain, organ="breast")
            name = f"patient{index // each + 1:02d}_{index % each + 1}.png"
            write_image(root / "images" / name, drawn.image)
            entries.append({"id": index, "file_name": name, "width": 256, "height": 256})
            tumour = (drawn.nucleus_types == NucleusType.NEOPLASTIC).tolist()
            for (x1, y1, x2, y2), label in zip(drawn.boxes().tolist(), tumour, strict=True):
                box = [x1, y1, x2 - x1, y2 - y1]
                notes.append({"image_id": index, "category_id": 2 - label, "bbox": box})
        names = ((1, "tumour cell"), (2, "other cell"))
        table = {
            "images": entries,
            "categories": [{"id": number, "name": name} for number, name in names],
            "annotations": [{"id": place, **note} for place, note in enumerate(notes)],
        }
        (root / _TABLE).write_text(json.dumps(table))

    def native_mpp(self) -> float:
        """Um per pixel as the options say."""
        return float(self.options.mpp)

    def tiler(self, tasks: tuple[Task, ...]) -> Tiler:
        """Tiles, with the share of empty ones that the options say."""
        return replace(super().tiler(tasks), empty_share=self.options.empty_share)

    def tasks_in(self, root: Path) -> tuple[Task, ...]:
        """One task with the classes of the options or the categories of the JSON."""
        options = self.options
        tables = [top / _TABLE for _, top in published_splits(root)]
        found = [tuple(_categories(_read(root, table)).values()) for table in tables]
        for table, names in zip(tables, found, strict=True):
            if set(names) != set(found[0]):
                raise LayoutError(
                    f"{relative(root, table)}: categories {', '.join(names)}; "
                    f"{relative(root, tables[0])} has {', '.join(found[0])}"
                )
        classes = tuple(options.classes) or found[0]
        if not classes or set(classes) != set(found[0]):
            raise ConfigError(
                f"data.*.{self.name}.options.classes: {', '.join(classes) or 'none'}; "
                f"the JSON has {', '.join(found[0]) or 'none'}"
            )
        if options.positive and options.positive not in classes:
            raise ConfigError(
                f"data.*.{self.name}.options.positive: no class '{options.positive}'; "
                f"known: {', '.join(classes)}"
            )
        return (
            Task(
                "boxes",
                TaskKind.DETECTION,
                classes,
                positive=options.positive or None,
                object_size_um=options.object_size_um,
                match_distance_um=options.match_distance_um,
            ),
        )

    def records(self, root: Path) -> Iterator[Record]:
        """Split by split, in order of the image ids."""
        pattern = group_pattern(self.options.group)
        classes = self.tasks_in(root)[0].classes
        for split, top in published_splits(root):
            data = _read(root, top / _TABLE)
            objects = _objects(relative(root, top / _TABLE), data, classes)
            for entry in sorted(data["images"], key=lambda row: str(row["id"]).zfill(20)):
                path = top / "images" / entry["file_name"]
                yield Record(
                    source=relative(root, path),
                    image=path,
                    targets={"boxes": _boxes(objects.get(entry["id"], []), entry)},
                    split=split,
                    group=group_of(pattern, root, path),
                )


def _read(root: Path, path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: no such file; it holds the boxes")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        ids = {row["id"] for row in data["images"] if row["file_name"]}
        orphan = next((a for a in data["annotations"] if a["image_id"] not in ids), None)
        _categories(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LayoutError(f"{relative(root, path)}: not COCO's JSON ({error!r})") from error
    if orphan is not None:
        raise LayoutError(
            f"{relative(root, path)}: an annotation belongs to image {orphan['image_id']}, "
            "which is not listed"
        )
    return dict(data)


def _categories(data: dict[str, Any]) -> dict[int, str]:
    """Names by id, in order of the ids."""
    return {row["id"]: row["name"] for row in sorted(data["categories"], key=lambda r: r["id"])}


def _objects(
    where: str, data: dict[str, Any], classes: tuple[str, ...]
) -> dict[Any, list[tuple[list[float], int]]]:
    """The boxes of each image, x, y, width, height, with their class."""
    names = _categories(data)
    objects: dict[Any, list[tuple[list[float], int]]] = {}
    for row in data["annotations"]:
        try:
            label = classes.index(names[row["category_id"]])
            x, y, width, height = (float(number) for number in row["bbox"])
        except (KeyError, TypeError, ValueError) as error:
            raise LayoutError(f"{where}: annotation {row} has no category or box") from error
        if row.get("iscrowd"):
            raise LayoutError(
                f"{where}: image {row['image_id']} has a region marked iscrowd, expected objects"
            )
        objects.setdefault(row["image_id"], []).append(([x, y, width, height], label))
    return objects


def _boxes(objects: list[tuple[list[float], int]], entry: dict[str, Any]) -> Boxes:
    """Corners instead of width and height, with rounding errors at the edge taken off."""
    xywh = np.array([box for box, _ in objects], np.float64).reshape(-1, 4)
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    if "width" in entry and "height" in entry:
        edge = np.array([entry["width"], entry["height"]] * 2, np.float64)
        clipped = xyxy.clip(0, edge)
        xyxy = np.where(np.abs(clipped - xyxy) <= _ROUNDING, clipped, xyxy)
    return Boxes(xyxy.astype(np.float32), np.array([label for _, label in objects], np.int64))
