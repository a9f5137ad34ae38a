"""From one record to patches of one size and resolution, targets kept aligned with pixels.

There are two views. TILE resamples the image to the wanted µm/px and cuts it into a grid; it suits
dense targets and regions. WHOLE scales the image as a whole until its shorter side fits the
patch and keeps the centre; it suits labels of the entire image.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import ImageError
from datamodules.core.records import Boxes, Image, Mask, Target, Task, TaskKind
from datamodules.formats.raster import MAX_PIXELS

_Targets = Mapping[str, Target]


class View(StrEnum):
    """How an image becomes patches."""

    TILE = "tile"
    WHOLE = "whole"


@dataclass(frozen=True)
class Patch:
    """A square of a record's image with its targets."""

    image: Image
    targets: Mapping[str, Target]  # by task name
    x: int  # upper left corner in pixels of the source image
    y: int
    mpp: float  # µm per pixel of the patch; 0 if unknown


@dataclass(frozen=True)
class Tiler:
    """Cuts images into patches.

    >>> tiler = Tiler(tasks=(), side=256, view=View.TILE, mpp=0.5)
    >>> patches = tiler.cut(np.zeros((600, 1000, 3), np.uint8), {}, mpp=0.25)
    >>> [(patch.x, patch.y, patch.image.shape, patch.mpp) for patch in patches]
    [(0, 0, (256, 256, 3), 0.5), (488, 0, (256, 256, 3), 0.5),
     (0, 88, (256, 256, 3), 0.5), (488, 88, (256, 256, 3), 0.5)]
    """

    tasks: tuple[Task, ...]
    side: int  # of a patch in pixels
    view: View
    mpp: float  # wanted µm/px of tiles; 0 keeps the image's own resolution
    keep: float = 0.5  # an object counts in a tile with this share of its box, or its centre
    empty_share: float = 1.0  # share of the training tiles without any object that is kept

    def cut(self, image: Image, targets: _Targets, mpp: float) -> list[Patch]:
        """Cut one image into patches; tiles without any labelled pixel are left out.

        Where the µm per pixel of the image are 0 (unknown), its resolution is kept.

        Raises:
            ImageError: resampling would make it too large, as of one row that is scaled to a patch.
        """
        height, width = image.shape[:2]
        if self.view is View.WHOLE:
            scale = self.side / min(height, width)
        else:
            scale = mpp / self.mpp if mpp and self.mpp else 1.0
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        if size[0] * size[1] > max(MAX_PIXELS, height * width):
            problem = f"{width}x{height} px would become {size[1]}x{size[0]} px"
            raise ImageError(f"{problem}, too many; leave it out, or change patch_size or mpp")
        image, targets = self._resized(image, targets, size)
        image, targets = self._padded(image, targets)
        patches = []
        for y, x in self._corners(image.shape[:2]):
            pixels, cropped = self._cropped(image, targets, x, y)
            if self._has_label(cropped):
                corner = round(x / scale), round(y / scale)
                patches.append(Patch(pixels, cropped, *corner, mpp / scale))
        return patches

    def thinned(self, patches: list[Patch]) -> list[Patch]:
        """Keep training patches with an object, and the share `empty_share` of the others.

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

    def _resized(
        self, image: Image, targets: _Targets, size: tuple[int, int]
    ) -> tuple[Image, _Targets]:
        old = image.shape[:2]
        if old == size:
            return image, targets
        factor = np.array([size[1] / old[1], size[0] / old[0]] * 2, np.float32)
        resized = self._map_targets(
            targets,
            lambda boxes: Boxes(boxes.xyxy * factor, boxes.labels),
            lambda mask, _: resize_mask(mask, size),
        )
        return resize_image(image, size), resized

    def _padded(self, image: Image, targets: _Targets) -> tuple[Image, _Targets]:
        """Fill up an image that is smaller than a patch; added pixels carry no dense label.

        It is mirrored, unless objects are to be detected: their mirror images would have no box.
        Then the margin is flat, of the median colour of the image's border.
        """
        down, right = (max(0, self.side - length) for length in image.shape[:2])
        if not (down or right):
            return image, targets
        kind, colour = cv2.BORDER_REFLECT, (0.0, 0.0, 0.0)
        if any(task.kind is TaskKind.DETECTION for task in self.tasks):
            border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
            kind, colour = cv2.BORDER_CONSTANT, np.median(border, axis=0).tolist()
        padded = cv2.copyMakeBorder(image, 0, down, 0, right, kind, value=colour)
        margin = ((0, down), (0, right))
        return np.asarray(padded, np.uint8), self._map_targets(
            targets,
            lambda boxes: boxes,
            lambda mask, task: np.pad(mask, margin, constant_values=task.ignore_index),
        )

    def _cropped(self, image: Image, targets: _Targets, x: int, y: int) -> tuple[Image, _Targets]:
        window = np.s_[y : y + self.side, x : x + self.side]
        return np.ascontiguousarray(image[window]), self._map_targets(
            targets,
            lambda boxes: clip_boxes(boxes, x, y, self.side, self.keep),
            lambda mask, _: np.ascontiguousarray(mask[window]),
        )

    def _map_targets(
        self,
        targets: _Targets,
        change_boxes: Callable[[Boxes], Boxes],
        change_mask: Callable[[Mask, Task], Mask],
    ) -> _Targets:
        """Targets with boxes and masks changed, all others as they are."""
        changed: dict[str, Target] = {}
        for task in self.tasks:
            target = targets[task.name]
            if isinstance(target, Boxes):
                target = change_boxes(target)
            elif task.kind is TaskKind.SEGMENTATION:
                target = change_mask(np.asarray(target, np.uint8), task)
            changed[task.name] = target
        return changed

    def _has_label(self, targets: _Targets) -> bool:
        """False if every pixel of every task is to be ignored."""
        return not self.tasks or any(
            task.kind is not TaskKind.SEGMENTATION
            or bool((np.asarray(targets[task.name]) != task.ignore_index).any())
            for task in self.tasks
        )


def _has_object(patch: Patch) -> bool:
    """False for a tile of a detection task in which there is nothing to detect."""
    boxes = [target for target in patch.targets.values() if isinstance(target, Boxes)]
    return not boxes or any(len(target) for target in boxes)


def grid(length: int, side: int) -> list[int]:
    """Corners of tiles that cover `length` pixels; the last is moved inwards, not padded.

    >>> grid(600, 256)
    [0, 172, 344]
    """
    count = -(-length // side)
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def resize_image(image: Image, size: tuple[int, int]) -> Image:
    """Resample to (height, width): by area when shrinking, cubic when growing."""
    if image.shape[:2] == size:
        return image
    shrink = size[0] < image.shape[0]
    method = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)


def resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resample class indices to (height, width) without mixing them."""
    resized = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.uint8)


def clip_boxes(boxes: Boxes, x: int, y: int, side: int, keep: float) -> Boxes:
    """Clip boxes to the tile at (x, y), in pixels of the tile.

    A box stays if at least the share `keep` of its area lies within the tile, or its centre
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
