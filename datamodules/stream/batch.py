"""The micro-batch: images of several datasets in one tensor, targets in slices of it.

Contract: `images` is one contiguous uint8 tensor, and every dataset owns a contiguous slice.
The encoder sees the images once; a head sees its own slice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class DetectionTarget:
    """Objects of a slice of images, flat over the images.

    Attributes:
        boxes: float32 (n, 4), x1, y1, x2, y2 in pixels of the network input.
        labels: int64 (n,), class index.
        image: int64 (n,), index of the object's image within the slice, ascending.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> DetectionTarget:
        """Copy to a device."""
        return DetectionTarget(
            *(
                t.to(device, non_blocking=non_blocking)
                for t in (self.boxes, self.labels, self.image)
            )
        )

    def pin_memory(self) -> DetectionTarget:
        """Copy to page-locked memory."""
        return DetectionTarget(
            self.boxes.pin_memory(), self.labels.pin_memory(), self.image.pin_memory()
        )

    def head(self, images: int) -> DetectionTarget:
        """The objects of the first `images` images."""
        keep = self.image < images
        return DetectionTarget(self.boxes[keep], self.labels[keep], self.image[keep])


BatchTarget = Tensor | DetectionTarget
"""classification int64 (n,); regression float32 (n,); multilabel float32 (n, classes);
segmentation int64 (n, height, width); detection `DetectionTarget`."""


@dataclass
class Part:
    """One dataset's share of a micro-batch.

    Attributes:
        dataset: the dataset's name in this run.
        start, stop: its images are `batch.images[start:stop]`.
        targets: by task name.
        index: int64 (stop - start,), position of each image in the dataset's store.
        valid: only the first `valid` images count in metrics; the rest pads the ranks of a
            distributed evaluation to the same number of batches.
    """

    dataset: str
    start: int
    stop: int
    targets: dict[str, BatchTarget]
    index: Tensor
    valid: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass
class MultiTaskBatch:
    """Images of K datasets and their targets.

    Attributes:
        images: uint8 (n, height, width, 3), contiguous; permuted to (n, 3, height, width) it is
            already in channels-last memory format.
        parts: the datasets' slices, in the order of the images.
        step: running number of the micro-batch (per rank), which seeds everything random that
            happens to it on the device.
    """

    images: Tensor
    parts: list[Part]
    step: int = 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MultiTaskBatch:
        """Copy images and targets to a device."""

        def part_to(part: Part) -> Part:
            targets = {
                name: target.to(device, non_blocking=non_blocking)
                for name, target in part.targets.items()
            }
            return Part(part.dataset, part.start, part.stop, targets, part.index, part.valid)

        images = self.images.to(device, non_blocking=non_blocking)
        return MultiTaskBatch(images, [part_to(p) for p in self.parts], self.step)

    def pin_memory(self) -> MultiTaskBatch:
        """Copy to page-locked memory, so that the copy to the device overlaps with work."""
        parts = [
            Part(
                p.dataset,
                p.start,
                p.stop,
                {name: target.pin_memory() for name, target in p.targets.items()},
                p.index,
                p.valid,
            )
            for p in self.parts
        ]
        return MultiTaskBatch(self.images.pin_memory(), parts, self.step)
