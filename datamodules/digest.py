"""The content digest of a store: one number that two equal stores share.

The writer computes it from what it is given, `verify` from what the file holds; a difference
means that the file is not what was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datamodules.records import Boxes, Image, Target, Task, TaskKind

SCALAR_TYPE: dict[TaskKind, Any] = {
    TaskKind.CLASSIFICATION: np.int64,
    TaskKind.REGRESSION: np.float32,
    TaskKind.MULTILABEL: np.uint8,
}
"""Type in which targets of one or a few numbers are stored."""


class ContentDigest:
    """SHA-256 over patches in their order: pixels, targets, split, group and source.

    Args:
        tasks: the store's tasks; their order counts.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        self._hash = hashlib.sha256()

    def add(
        self, split: str, group: str, source: str, image: Image, targets: Mapping[str, Target]
    ) -> None:
        """Append one patch."""
        self._hash.update(f"{split}|{group}|{source}".encode())
        self._hash.update(image.tobytes())
        for task in self.tasks:
            target = targets[task.name]
            if isinstance(target, Boxes):
                self._hash.update(target.xyxy.astype(np.float32).tobytes())
                self._hash.update(target.labels.astype(np.int64).tobytes())
            else:
                stored = np.asarray(target, SCALAR_TYPE.get(task.kind, np.uint8))
                self._hash.update(stored.tobytes())

    def hexdigest(self) -> str:
        """The digest of everything added so far."""
        return self._hash.hexdigest()
