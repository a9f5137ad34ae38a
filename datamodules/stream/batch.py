"""The micro-batch: images of several datasets in one tensor, targets in slices of it.

Contract: `images` is one contiguous uint8 tensor, and every dataset owns a contiguous slice.
The encoder sees the images once; a head sees its own slice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class DetectionTarget:
    """Objects of a slice of images, flat over the images."""

    boxes: Tensor  # (n, 4) float32; x1, y1, x2, y2 in pixels of the network input
    labels: Tensor  # (n,) int64, class index
    image: Tensor  # (n,) int64, index of the object's image within the slice, ascending

    def to(self, device: torch.device | str, non_blocking: bool = False) -> DetectionTarget:
        """Copy to a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> DetectionTarget:
        """Copy to page-locked memory."""
        return self._map(Tensor.pin_memory)

    def head(self, images: int) -> DetectionTarget:
        """Return the objects of the first `images` images."""
        keep = self.image < images
        return self._map(lambda tensor: tensor[keep])

    def _map(self, change: Callable[[Tensor], Tensor]) -> DetectionTarget:
        return DetectionTarget(change(self.boxes), change(self.labels), change(self.image))


BatchTarget = Tensor | DetectionTarget
"""classification (n,) int64; regression (n,) float32; multilabel (n, classes) float32;
segmentation (n, height, width) uint8 (int64 is eight times the copying); detection
`DetectionTarget`."""


@dataclass
class Part:
    """One dataset's share of a micro-batch.

    Only the first `valid` images count in metrics; the others pad the ranks of a distributed
    evaluation to the same number of batches.
    """

    dataset: str  # its name in this run
    start: int
    stop: int  # its images are `batch.images[start:stop]`
    targets: dict[str, BatchTarget]  # by task name
    index: Tensor  # (stop - start,) int64, row of each image in the dataset's store
    valid: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass
class MultiTaskBatch:
    """Images of K datasets and their targets.

    Permuted to (n, 3, height, width) the images are already in channels-last memory format.
    """

    images: Tensor  # (n, height, width, 3) uint8, contiguous
    parts: list[Part]  # in the order of the images
    step: int = 0  # number of the micro-batch (per rank); seeds all randomness on the device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MultiTaskBatch:
        """Copy images and targets to a device."""
        return self._map(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> MultiTaskBatch:
        """Copy to page-locked memory, so that the copy to the device overlaps with computation."""
        return self._map(lambda value: value.pin_memory())

    def _map(self, change: Callable[[Any], Any]) -> MultiTaskBatch:
        parts = [
            replace(part, targets={name: change(target) for name, target in part.targets.items()})
            for part in self.parts
        ]
        return MultiTaskBatch(change(self.images), parts, self.step)
