"""Augmentation on the CPU: uint8 geometry, pixels and targets together.

The only file that imports albumentations. Colour, blur, stain and normalisation follow on the
device. A sample's randomness is a function of its seed, so neither the number of workers nor an
interruption changes the training data. The steps are called one by one: the checks and conversions
of `Compose` took longer than the steps.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from random import Random
from typing import Any

# Without this the import looks up the newest release over the network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np

from datamodules.config import AugmentationConfig
from datamodules.core.records import Boxes, Image, Target, Task, TaskKind

# Plain nearest neighbour counts from the corner of pixels and shifts masks against their image by
# up to half a pixel; this method counts from the centre, like all the others.
MASK_METHOD = cv2.INTER_NEAREST_EXACT
MIN_VISIBILITY = 0.4  # share of an object's area that must survive a crop to stay an object
AVERAGED_FROM = 1.25
"""Crops are scaled bilinearly up to this shrinkage, beyond it by averaging, which takes ten times
as long. From 256 to 224 pixels both are equally far from Lanczos' method (0.05 grey levels)."""
TURNS: dict[str, Callable[[Any], Any]] = {
    "e": lambda pixels: pixels,
    "r90": partial(cv2.rotate, rotateCode=cv2.ROTATE_90_COUNTERCLOCKWISE),
    "r180": partial(cv2.rotate, rotateCode=cv2.ROTATE_180),
    "r270": partial(cv2.rotate, rotateCode=cv2.ROTATE_90_CLOCKWISE),
    "v": partial(cv2.flip, flipCode=0),
    "hvt": lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    "h": partial(cv2.flip, flipCode=1),
    "t": cv2.transpose,
}
"""The turns of `A.D4`, whose transposed views take 200 times as long to copy."""
_D4 = A.D4()
_UNUSED = np.random.default_rng(0)  # the crop draws from the other generator


@dataclass(frozen=True)
class Transform:
    """Brings patches and their targets to the network's input size."""

    size: int  # side of the network input in pixels
    tasks: tuple[Task, ...]
    augmentation: AugmentationConfig | None = None  # None for evaluation: scales the whole patch

    def __call__(
        self, image: Image, targets: Mapping[str, Target], seed: int
    ) -> tuple[Image, dict[str, Target]]:
        """Transform one patch, (side, side, 3) uint8; the seed fixes all randomness.

        Returns:
            (size, size, 3) uint8 and the targets in its pixels.
        """
        height, width = image.shape[:2]
        window, turn = (0, 0, width, height), "e"
        if self.augmentation is not None:
            random = Random(seed)
            self._scale.set_random_state(_UNUSED, random)
            shape = {"shape": image.shape}
            window = self._scale.get_params_dependent_on_data(shape, {})["crop_coords"]
            turn = random.choice(tuple(TURNS))
        crop = {"crop_coords": window}
        changed = dict(targets)
        for task in self.tasks:
            target = targets[task.name]
            if isinstance(target, Boxes):
                changed[task.name] = self._move(target, window, turn)
            elif task.kind is TaskKind.SEGMENTATION:
                changed[task.name] = TURNS[turn](self._scale.apply_to_mask(target, **crop))
        shrinks = window[2] - window[0] > AVERAGED_FROM * self.size
        scale = self._average if shrinks and self.augmentation else self._scale
        return TURNS[turn](scale.apply(image, **crop)), changed

    @cached_property
    def _scale(self) -> Any:
        if self.augmentation is None:
            # Averaging is for shrinking only; enlarging with it turns pixels into blocks.
            methods = (cv2.INTER_CUBIC, MASK_METHOD, "image")
            return A.Resize(self.size, self.size, *methods)
        scale = (self.augmentation.scale_min, 1.0)
        return A.RandomResizedCrop(
            (self.size, self.size), scale, ratio=(0.9, 1.1), mask_interpolation=MASK_METHOD
        )

    @cached_property
    def _average(self) -> Any:
        return A.RandomResizedCrop((self.size, self.size), interpolation=cv2.INTER_AREA)

    def _move(self, boxes: Boxes, window: tuple[int, ...], turn: str) -> Boxes:
        """Move boxes with the pixels; drop those of which the window shows too little."""
        corner, end = np.array(window[:2] * 2), np.array(window[2:] * 2)
        shares = (boxes.xyxy - corner) / (end - corner)
        inside = shares.clip(0, 1)
        area, seen = ((s[:, 2:] - s[:, :2]).prod(1) for s in (shares, inside))
        keep = (area > 0) & (seen >= MIN_VISIBILITY * area)
        xyxy = _D4.apply_to_bboxes(inside[keep], turn) * self.size
        return Boxes(xyxy.astype(np.float32), boxes.labels[keep])
