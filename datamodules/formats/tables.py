"""Reading tables: CSV with and without a header, spreadsheets, JSON, and COCO's boxes in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.formats.layout import layout_error, relative
from datamodules.formats.xlsx import read_xlsx


def read_table(
    root: Path, path: Path, columns: Sequence[str], delimiter: str = ","
) -> list[dict[str, str]]:
    """Rows of a CSV or .xlsx file with a header; names and values lose surrounding spaces.

    Raises:
        DatasetNotFoundError: no such file.
        LayoutError: one of `columns` is missing, or a row is short.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: no such file; it is part of the published dataset")
    if path.suffix == ".xlsx":
        sheet = read_xlsx(path)  # leaves out empty cells at the end of a line
        lines = [[*line, *[""] * (len(sheet[0]) - len(line))] for line in sheet]
    else:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, delimiter=delimiter))
    lines = [[cell.strip() for cell in line] for line in lines]
    header = lines[0] if lines else []
    missing = [name for name in columns if name not in header]
    if missing:
        problem = f"no column '{missing[0]}'; found {', '.join(header) or 'none'}"
        raise layout_error(root, path, problem)
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(line):
            continue
        if len(line) < len(header):
            raise LayoutError(
                f"{relative(root, path)}, line {number}: {len(line)} values, expected {len(header)}"
            )
        rows.append(dict(zip(header, line, strict=False)))
    return rows


def read_numbers(path: Path, columns: Sequence[str]) -> NDArray[np.float64]:
    """Numbers of a CSV file without a header; an empty file holds none.

    Returns:
        float64 (lines, columns).

    Raises:
        LayoutError: a line is not one number for each of `columns`.
    """
    rows = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(csv.reader(file), start=1):
            try:
                rows.append([float(cell) for cell, _ in zip(line, columns, strict=True)])
            except ValueError as error:
                raise LayoutError(
                    f"{path}, line {number}: '{','.join(line)}', expected {','.join(columns)}"
                ) from error
    return np.array(rows, np.float64).reshape(-1, len(columns))


def read_json(root: Path, path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        DatasetNotFoundError: no such file.
        LayoutError: it is not JSON.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: no such file; it is part of the dataset")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise layout_error(root, path, f"not readable as JSON ({error})") from error


@dataclass(frozen=True)
class Coco:
    """The content of a JSON file in COCO's format for objects.

    Attributes:
        images: the entries of the list `images`, by id.
        categories: names of the categories, in order of their ids.
        objects: four numbers of `bbox` as they stand and category name of every annotation, by
            id of its image.
    """

    images: Mapping[Any, dict[str, Any]]
    categories: tuple[str, ...]
    objects: Mapping[Any, list[tuple[list[float], str]]]


def read_coco(root: Path, path: Path) -> Coco:
    """Images, categories and annotations of a JSON file in COCO's format.

    Raises:
        DatasetNotFoundError: no such file.
        LayoutError: it is not in COCO's format, or an annotation is unusable.
    """
    data = read_json(root, path)
    try:
        entries = [{**row, "file_name": str(row["file_name"])} for row in data["images"]]
        images = {row["id"]: row for row in entries}
        names = dict(sorted((row["id"], row["name"]) for row in data["categories"]))
        annotations = [(row["image_id"], row) for row in data["annotations"]]
    except (KeyError, TypeError) as error:
        raise layout_error(root, path, f"not in COCO's format ({error!r})") from error
    if len(images) < len(entries):
        raise layout_error(root, path, "two images have the same id")
    objects: dict[Any, list[tuple[list[float], str]]] = {}
    for image, row in annotations:
        if image not in images:
            problem = f"an annotation belongs to image {image}, which is not listed"
            raise layout_error(root, path, problem)
        if row.get("iscrowd"):
            problem = f"image {image} has a region marked iscrowd, expected objects"
            raise layout_error(root, path, problem)
        try:
            a, b, c, d = (float(number) for number in row["bbox"])
            objects.setdefault(image, []).append(([a, b, c, d], names[row["category_id"]]))
        except (KeyError, TypeError, ValueError) as error:
            raise layout_error(root, path, f"annotation {row} has no category or box") from error
    return Coco(images, tuple(names.values()), objects)
