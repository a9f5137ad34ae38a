"""From one record to patches of one size and resolution, targets kept aligned with pixels.

Two views exist. TILE resamples the image to the wanted um/px and cuts it into a grid; it suits
dense targets and regions. WHOLE scales the image as a whole until its shorter side fits the
patch and keeps the centre; it suits labels that belong to the entire image.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import Boxes, Image, Target, Task, TaskKind


class View(StrEnum):
    """How an image becomes patches."""

    TILE = "tile"
    WHOLE = "whole"


@dataclass(frozen=True)
class Patch:
    """A square of a record's image with its targets.

    Attributes:
        image: uint8 (side, side, 3).
        targets: by task name.
        x, y: upper left corner in pixels of the source image.
        mpp: um per pixel of the patch; 0 where unknown.
    """

    image: Image
    targets: Mapping[str, Target]
    x: int
    y: int
    mpp: float


@dataclass(frozen=True)
class Tiler:
    """Cuts images into patches.

    Attributes:
        tasks: what the targets mean.
        side: side of a patch in pixels.
        view: see `View`.
        mpp: wanted um/px of tiles; 0 keeps the image's own resolution.
        keep: an object counts in a tile that holds this share of its box, or its centre.
        empty_share: share of the training tiles without any object that is kept (detection).
    """

    tasks: tuple[Task, ...]
    side: int
    view: View
    mpp: float
    keep: float = 0.5
    empty_share: float = 1.0

    def cut(self, image: Image, targets: Mapping[str, Target], mpp: float) -> list[Patch]:
        """Patches of one image.

        Args:
            image: uint8 (height, width, 3).
            targets: by task name, in pixels of `image`.
            mpp: um per pixel of `image`; 0 where unknown, which leaves the resolution alone.
        """
        height, width = image.shape[:2]
        if self.view is View.WHOLE:
            scale = self.side / min(height, width)
        else:
            scale = mpp / self.mpp if mpp and self.mpp else 1.0
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        image = resize_image(image, size)
        targets = self._scaled(targets, (height, width), size)
        image, targets = self._padded(image, targets)
        patches = [
            self._patch(image, targets, x, y, scale, mpp) for y, x in self._corners(image.shape[:2])
        ]
        return [patch for patch in patches if self._has_label(patch)]

    def thinned(self, patches: list[Patch]) -> list[Patch]:
        """Training patches: all with an object, and the share `empty_share` of the others.

        Objects as rare as mitoses would drown in empty tiles. Which of those stay is decided by
        a checksum of place and pixels, so neither order nor machine matters. Evaluation keeps
        all tiles.
        """
        return [patch for patch in patches if _has_object(patch) or self._is_drawn(patch)]

    def _is_drawn(self, patch: Patch) -> bool:
        place = zlib.crc32(f"{patch.x},{patch.y}".encode())
        return zlib.crc32(patch.image.tobytes(), place) < self.empty_share * 2**32

    def _corners(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        height, width = size
        if self.view is View.WHOLE:
            return [((height - self.side) // 2, (width - self.side) // 2)]
        return [(y, x) for y in grid(height, self.side) for x in grid(width, self.side)]

    def _scaled(
        self, targets: Mapping[str, Target], old: tuple[int, int], new: tuple[int, int]
    ) -> dict[str, Target]:
        if old == new:
            return dict(targets)
        factor = np.array([new[1] / old[1], new[0] / old[0]] * 2, np.float32)
        scaled: dict[str, Target] = {}
        for task in self.tasks:
            target = targets[task.name]
            if isinstance(target, Boxes):
                target = Boxes(target.xyxy * factor, target.labels)
            elif task.kind is TaskKind.SEGMENTATION:
                target = resize_mask(np.asarray(target, np.uint8), new)
            scaled[task.name] = target
        return scaled

    def _padded(self, image: Image, targets: dict[str, Target]) -> tuple[Image, dict[str, Target]]:
        """Mirror an image that is smaller than a patch; added pixels carry no dense label."""
        down, right = (max(0, self.side - length) for length in image.shape[:2])
        if not (down or right):
            return image, targets
        padded = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REFLECT)
        for task in self.tasks:
            if task.kind is TaskKind.SEGMENTATION:
                mask = np.asarray(targets[task.name], np.uint8)
                targets[task.name] = np.pad(
                    mask, ((0, down), (0, right)), constant_values=task.ignore_index
                )
        return np.asarray(padded, np.uint8), targets

    def _patch(
        self,
        image: Image,
        targets: Mapping[str, Target],
        x: int,
        y: int,
        scale: float,
        mpp: float,
    ) -> Patch:
        cut: dict[str, Target] = {}
        for task in self.tasks:
            target = targets[task.name]
            if isinstance(target, Boxes):
                target = clip_boxes(target, x, y, self.side, self.keep)
            elif task.kind is TaskKind.SEGMENTATION:
                mask = np.asarray(target, np.uint8)
                target = np.ascontiguousarray(mask[y : y + self.side, x : x + self.side])
            cut[task.name] = target
        pixels = np.ascontiguousarray(image[y : y + self.side, x : x + self.side])
        return Patch(pixels, cut, round(x / scale), round(y / scale), mpp / scale)

    def _has_label(self, patch: Patch) -> bool:
        """False for a tile in which every pixel of every task is to be ignored."""
        return not self.tasks or any(
            task.kind is not TaskKind.SEGMENTATION
            or bool((np.asarray(patch.targets[task.name]) != task.ignore_index).any())
            for task in self.tasks
        )


def _has_object(patch: Patch) -> bool:
    """False for a tile of a detection task in which there is nothing to detect."""
    found = [target for target in patch.targets.values() if isinstance(target, Boxes)]
    return not found or any(len(boxes) for boxes in found)


def grid(length: int, side: int) -> list[int]:
    """Corners of tiles that cover `length` pixels; the last is moved inwards, not padded."""
    count = -(-length // side)
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def resize_image(image: Image, size: tuple[int, int]) -> Image:
    """Resample to (height, width): by area when shrinking, cubic when growing."""
    if image.shape[:2] == size:
        return image
    shrink = size[0] < image.shape[0]
    method = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)


def resize_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample class indices to (height, width) without mixing them."""
    resized = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.uint8)


def clip_boxes(boxes: Boxes, x: int, y: int, side: int, keep: float) -> Boxes:
    """Boxes in pixels of the tile at (x, y), clipped to it.

    A box stays when at least the share `keep` of its area lies within the tile, or its centre
    does: where four tiles meet, each may hold a quarter of an object that must not get lost.
    """
    if not len(boxes):
        return boxes
    shifted = boxes.xyxy - np.array([x, y, x, y], np.float32)
    clipped = shifted.clip(0, side)
    centre = (shifted[:, :2] + shifted[:, 2:]) / 2
    inside = _area(clipped) >= keep * _area(shifted)
    inside |= ((centre >= 0) & (centre <= side)).all(axis=1)
    inside &= _area(clipped) > 0
    return Boxes(clipped[inside].astype(np.float32), boxes.labels[inside])


def _area(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1]), np.float32)
