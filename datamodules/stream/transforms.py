"""Augmentation on the CPU: uint8 geometry, pixels and targets together.

The only file that imports albumentations. Colour, blur, stain and normalisation follow on the
device. A sample's randomness is a function of its seed, so neither the number of workers nor an
interruption changes the training data.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
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
        masks = [t.name for t in self.tasks if t.kind is TaskKind.SEGMENTATION]
        boxes = {name: target for name, target in targets.items() if isinstance(target, Boxes)}
        arguments: dict[str, Any] = {"image": image}
        if masks:
            arguments["masks"] = [targets[name] for name in masks]
        if boxes:
            counts = [len(target) for target in boxes.values()]
            arguments["bboxes"] = np.concatenate([target.xyxy for target in boxes.values()])
            arguments["owner"] = np.repeat(np.arange(len(boxes)), counts)
            arguments["label"] = np.concatenate([target.labels for target in boxes.values()])
        self._pipeline.set_random_seed(seed)
        result = self._pipeline(**arguments)
        changed = dict(targets)
        changed.update(zip(masks, result.get("masks", ()), strict=True))
        for number, name in enumerate(boxes):
            changed[name] = _boxes_of(result, number)
        return result["image"], changed

    @cached_property
    def _pipeline(self) -> A.Compose:
        # Averaging is for shrinking only; enlarging with it turns pixels into blocks.
        steps = [
            A.Resize(self.size, self.size, cv2.INTER_CUBIC, MASK_METHOD, area_for_downscale="image")
        ]
        if self.augmentation is not None:
            steps = _augmentations(self.size, self.augmentation)
        boxes = None
        if any(task.kind is TaskKind.DETECTION for task in self.tasks):
            names = ["owner", "label"]
            boxes = A.BboxParams("pascal_voc", names, min_visibility=MIN_VISIBILITY, clip=True)
        return A.Compose(steps, bbox_params=boxes)


def _augmentations(size: int, config: AugmentationConfig) -> list[Any]:
    return [
        A.RandomResizedCrop(
            (size, size),
            scale=(config.scale_min, 1.0),
            ratio=(0.9, 1.1),
            mask_interpolation=MASK_METHOD,
            area_for_downscale="image",
        ),
        A.D4(p=1.0),
    ]


def _boxes_of(result: Mapping[str, Any], owner: int) -> Boxes:
    owned = np.asarray(result["owner"], np.int64) == owner
    xyxy = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
    return Boxes(xyxy[owned], np.asarray(result["label"], np.int64)[owned])
