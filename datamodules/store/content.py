"""Lossless compression of patches, and the digest of a store's content.

Compression is for machines with more CPU than disk. Measured on real H&E patches of 256 px: images
take 0.43 of their raw size, about 9 ms to encode and 1.2 ms to decode; reading them raw takes
0.05 ms.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from datamodules.core.records import Boxes, Image, Target, Task, TaskKind

_WEBP: dict[str, Any] = {
    "format": "WEBP",
    "lossless": True,
    "exact": True,
    "quality": 20,  # effort, not loss: 5 % larger than effort 50, and seven times faster
    "method": 2,
}
_PNG: dict[str, Any] = {"format": "PNG", "compress_level": 1}

SCALAR_TYPE: dict[TaskKind, Any] = {  # in which targets of one or a few numbers are stored
    TaskKind.CLASSIFICATION: np.int64,
    TaskKind.REGRESSION: np.float32,
    TaskKind.MULTILABEL: np.uint8,
}


def encode(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode an image (height, width, 3) as WebP or a mask (height, width) as PNG: (bytes,)."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, **(_WEBP if pixels.ndim == 3 else _PNG))
    return np.frombuffer(buffer.getvalue(), np.uint8)


def decode(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> bool:
    """Decode the result of `encode` into `out`; return False if it is damaged."""
    mode = cv2.IMREAD_COLOR_RGB if out.ndim == 3 else cv2.IMREAD_GRAYSCALE
    pixels = cv2.imdecode(data, mode) if len(data) else None
    if pixels is None or pixels.shape != out.shape:
        return False
    out[:] = pixels
    return True


def target_bytes(task: Task, target: Target) -> list[bytes]:
    """A target as the bytes that a store keeps of it."""
    if isinstance(target, Boxes):
        return [target.xyxy.astype(np.float32).tobytes(), target.labels.astype(np.int64).tobytes()]
    return [np.asarray(target, SCALAR_TYPE.get(task.kind, np.uint8)).tobytes()]


class ContentDigest:
    """SHA-256 over patches in their order: pixels, targets, split, group and source."""

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
            for part in target_bytes(task, targets[task.name]):
                self._hash.update(part)

    def hexdigest(self) -> str:
        """The digest of all patches added so far."""
        return self._hash.hexdigest()
