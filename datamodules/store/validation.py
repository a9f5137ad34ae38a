"""Checks that every record passes before it enters a store.

A reader never invents: data that do not fit raise an error naming the item and the expectation.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from datamodules.core import notes
from datamodules.core.errors import ImageError, LayoutError
from datamodules.core.options import MPP_MAX, MPP_MIN
from datamodules.core.records import SPLITS, Boxes, Image, Record, Target, Task, TaskKind
from datamodules.store.tiling import Patch


def check_record(record: Record, tasks: tuple[Task, ...]) -> None:
    """Raise a LayoutError for a split, group, resolution or set of targets that cannot be."""
    if record.split not in SPLITS:
        raise LayoutError(f"{record.source}: split '{record.split}', expected one of {SPLITS}")
    if not record.group:
        raise LayoutError(f"{record.source}: no group (patient, slide or case) could be found")
    if record.mpp is not None and not MPP_MIN <= record.mpp <= MPP_MAX:
        problem = f"{record.mpp:g} µm/px, expected {MPP_MIN:g} to {MPP_MAX:g}"
        raise LayoutError(f"{record.source}: {problem}")
    missing = [task.name for task in tasks if task.name not in record.targets]
    if missing:
        raise LayoutError(f"{record.source}: no target for task {', '.join(missing)}")


def check_image(record: Record, image: Image) -> None:
    """Raise an ImageError unless pixels are uint8 RGB, a LayoutError unless of the stated size."""
    source = record.source
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageError(
            f"{source}: image is {image.dtype} {image.shape}, expected uint8 (height, width, 3)"
        )
    if record.size and record.size != image.shape[:2]:
        stated, actual = (f"{w}x{h} px" for h, w in (record.size, image.shape[:2]))
        raise LayoutError(f"{source}: {actual} as displayed, its annotation file states {stated}")


def check_targets(
    source: str, targets: Mapping[str, Target], tasks: tuple[Task, ...], size: tuple[int, int]
) -> None:
    """Raise a LayoutError for a target that does not fit its image of `size` (height, width)."""
    for task in tasks:
        target = targets[task.name]
        if task.kind is TaskKind.SEGMENTATION:
            problem = _mask_problem(target, task, size)
        elif task.kind is TaskKind.DETECTION:
            problem = _box_problem(target, task, size)
        else:
            problem = _SCALAR_PROBLEMS[task.kind](target, task)
        if problem:
            raise LayoutError(f"{source}: task '{task.name}': {problem}")


def note_empty(source: str, targets: Mapping[str, Target], tasks: tuple[Task, ...]) -> None:
    """Note an image without any object or labelled foreground of a task."""
    for task in tasks:
        target = targets[task.name]
        if isinstance(target, Boxes):
            empty = not len(target)
        elif task.kind is not TaskKind.SEGMENTATION:
            continue
        elif task.classes[0] == "background" or len(task.classes) == 2:
            empty = not np.isin(target, range(1, len(task.classes))).any()
        else:
            continue
        if empty:
            notes.warning(source, f"image without an object of task '{task.name}'")


class Occurring:
    """Which classes of the tasks occur in patches."""

    def __init__(self, tasks: tuple[Task, ...]) -> None:
        self._tasks = tasks
        self._seen = {task.name: np.zeros(len(task.classes), bool) for task in tasks}

    def add(self, patches: Sequence[Patch]) -> None:
        """Look at the targets of patches."""
        for patch in patches:
            for name, seen in self._seen.items():
                target = patch.targets[name]
                if isinstance(target, Boxes):
                    seen[target.labels] = True
                elif isinstance(target, np.ndarray) and target.ndim == 2:
                    seen |= np.bincount(target.ravel(), minlength=256)[: len(seen)] > 0
                elif isinstance(target, np.ndarray):
                    seen |= target > 0
                elif len(seen):
                    seen[int(target)] = True

    def note_absent(self, dataset: str) -> None:
        """Note tasks without any object, else each class that never occurs."""
        for task in self._tasks:
            seen = self._seen[task.name]
            if len(seen) and not seen.any():
                notes.warning(dataset, f"no object of task '{task.name}' in the whole dataset")
            elif not seen.all():
                missing = ", ".join(task.classes[i] for i in np.flatnonzero(~seen))
                notes.warning(dataset, f"classes of task '{task.name}' never occur: {missing}")


def _class_problem(target: Target, task: Task) -> str:
    if not isinstance(target, (int, np.integer)) or not 0 <= target < len(task.classes):
        return f"class {target}, expected 0 to {len(task.classes) - 1}"
    return ""


def _value_problem(target: Target, task: Task) -> str:
    low = -np.inf if task.low is None else task.low
    high = np.inf if task.high is None else task.high
    if not isinstance(target, (float, int, np.floating)) or not np.isfinite(target):
        return f"value {target}, expected a finite number"
    return "" if low <= target <= high else f"value {target}, expected {low} to {high}"


def _multilabel_problem(target: Target, task: Task) -> str:
    if not isinstance(target, np.ndarray) or target.shape != (len(task.classes),):
        return f"expected one 0 or 1 for each of {len(task.classes)} classes"
    if not np.isin(target, (0, 1)).all():
        return f"values {np.unique(target).tolist()}, expected 0 and 1"
    return ""


_SCALAR_PROBLEMS = {
    TaskKind.CLASSIFICATION: _class_problem,
    TaskKind.REGRESSION: _value_problem,
    TaskKind.MULTILABEL: _multilabel_problem,
}


def _mask_problem(target: Target, task: Task, size: tuple[int, int]) -> str:
    if not isinstance(target, np.ndarray) or target.ndim != 2 or target.dtype != np.uint8:
        return "expected a uint8 mask of class indices"
    if target.shape != size:
        mask, image = (f"{width}x{height} px" for height, width in (target.shape, size))
        return f"mask is {mask}, its image is {image}"
    present = np.flatnonzero(np.bincount(target.ravel(), minlength=256))
    wrong = [int(v) for v in present if v >= len(task.classes) and v != task.ignore_index]
    if wrong:
        allowed = f"0 to {len(task.classes) - 1} or {task.ignore_index} (ignore)"
        return f"mask holds class index {wrong[0]}, expected {allowed}"
    return ""


def _box_problem(target: Target, task: Task, size: tuple[int, int]) -> str:
    if not isinstance(target, Boxes) or target.xyxy.shape != (len(target.labels), 4):
        return "expected boxes (n, 4) with n labels"
    if not len(target):
        return ""
    if target.labels.min() < 0 or target.labels.max() >= len(task.classes):
        return f"box class {int(target.labels.max())}, expected 0 to {len(task.classes) - 1}"
    low, high = target.xyxy[:, :2], target.xyxy[:, 2:]
    bad = ~((low >= 0) & (high <= size[::-1]) & (high > low)).all(axis=1)
    if bad.any():
        box = target.xyxy[bad][0].tolist()
        image = f"{size[1]}x{size[0]} px image"
        return f"box {box} (x1, y1, x2, y2) is empty or outside its {image}"
    return ""
