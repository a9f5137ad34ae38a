"""Checks that every record passes before it enters a store.

A reader never invents: what does not fit is an error naming the item and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from datamodules.core.errors import ImageError, LayoutError
from datamodules.core.records import SPLITS, Boxes, Image, Record, Target, Task, TaskKind


def check_record(record: Record, tasks: tuple[Task, ...]) -> None:
    """Check what a record says before its pixels are read.

    Raises:
        LayoutError: unknown split, no group, or a task without target.
    """
    if record.split not in SPLITS:
        raise LayoutError(f"{record.source}: split '{record.split}', expected one of {SPLITS}")
    if not record.group:
        raise LayoutError(f"{record.source}: no group (patient, slide or case) could be found")
    missing = [task.name for task in tasks if task.name not in record.targets]
    if missing:
        raise LayoutError(f"{record.source}: no target for task {', '.join(missing)}")


def check_image(source: str, image: Image) -> None:
    """Check that pixels are uint8 RGB.

    Raises:
        ImageError: another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageError(
            f"{source}: image is {image.dtype} {image.shape}, expected uint8 (height, width, 3)"
        )


def check_targets(
    source: str, targets: Mapping[str, Target], tasks: tuple[Task, ...], size: tuple[int, int]
) -> None:
    """Check the targets of one image of `size` (height, width) in pixels.

    Raises:
        LayoutError: class out of range, mask of another size, box outside, value out of range.
    """
    for task in tasks:
        where = f"{source}: task '{task.name}'"
        target = targets[task.name]
        if task.kind is TaskKind.CLASSIFICATION:
            _check_class(where, target, task)
        elif task.kind is TaskKind.REGRESSION:
            _check_value(where, target, task)
        elif task.kind is TaskKind.MULTILABEL:
            _check_multilabel(where, target, task)
        elif task.kind is TaskKind.SEGMENTATION:
            _check_mask(where, target, task, size)
        else:
            _check_boxes(where, target, task, size)


def _check_class(where: str, target: Target, task: Task) -> None:
    if not isinstance(target, (int, np.integer)) or not 0 <= target < len(task.classes):
        raise LayoutError(f"{where}: class {target}, expected 0 to {len(task.classes) - 1}")


def _check_value(where: str, target: Target, task: Task) -> None:
    low = -np.inf if task.low is None else task.low
    high = np.inf if task.high is None else task.high
    if not isinstance(target, (float, int, np.floating)) or not np.isfinite(target):
        raise LayoutError(f"{where}: value {target}, expected a finite number")
    if not low <= target <= high:
        raise LayoutError(f"{where}: value {target}, expected {low} to {high}")


def _check_multilabel(where: str, target: Target, task: Task) -> None:
    if not isinstance(target, np.ndarray) or target.shape != (len(task.classes),):
        raise LayoutError(f"{where}: expected one 0 or 1 for each of {len(task.classes)} classes")
    if not np.isin(target, (0, 1)).all():
        raise LayoutError(f"{where}: values {np.unique(target).tolist()}, expected 0 and 1")


def _check_mask(where: str, target: Target, task: Task, size: tuple[int, int]) -> None:
    if not isinstance(target, np.ndarray) or target.ndim != 2 or target.dtype != np.uint8:
        raise LayoutError(f"{where}: expected a uint8 mask of class indices")
    if target.shape != size:
        raise LayoutError(
            f"{where}: mask is {target.shape[1]}x{target.shape[0]} px, "
            f"its image is {size[1]}x{size[0]} px"
        )
    present = np.flatnonzero(np.bincount(target.ravel(), minlength=256))
    wrong = [int(v) for v in present if v >= len(task.classes) and v != task.ignore_index]
    if wrong:
        raise LayoutError(
            f"{where}: mask holds class index {wrong[0]}, "
            f"expected 0 to {len(task.classes) - 1} or {task.ignore_index} (ignore)"
        )


def _check_boxes(where: str, target: Target, task: Task, size: tuple[int, int]) -> None:
    if not isinstance(target, Boxes) or target.xyxy.shape != (len(target.labels), 4):
        raise LayoutError(f"{where}: expected boxes (n, 4) with n labels")
    if not len(target):
        return
    if target.labels.min() < 0 or target.labels.max() >= len(task.classes):
        raise LayoutError(
            f"{where}: box class {int(target.labels.max())}, expected 0 to {len(task.classes) - 1}"
        )
    low, high = target.xyxy[:, :2], target.xyxy[:, 2:]
    edge = np.array([size[1], size[0]], np.float32)
    bad = ~((low >= 0) & (high <= edge) & (high > low)).all(axis=1)
    if bad.any():
        box = target.xyxy[int(np.flatnonzero(bad)[0])].tolist()
        raise LayoutError(
            f"{where}: box {box} (x1, y1, x2, y2) is empty or outside its "
            f"{size[1]}x{size[0]} px image"
        )
