"""The geometry of dense, anchor-free detection: from maps to boxes and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

BEFORE_NMS = 1000
MAX_LOG_SIZE = 4.0  # e^4 times the typical size: keeps exp() finite


@dataclass
class Detections:
    """Predicted objects of a batch of images, flat over the images.

    Attributes:
        boxes: float32 (m, 4), x1, y1, x2, y2 in pixels of the network input.
        scores: float32 (m,), in [0, 1]; descending within an image.
        labels: int64 (m,), class index.
        image: int64 (m,), ascending.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    image: Tensor

    def of(self, image: int) -> Detections:
        """The objects of one image."""
        keep = self.image == image
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep], self.image[keep])


@dataclass(frozen=True)
class Grid:
    """Cells and boxes of one detection map.

    A cell predicts the offset of the object's centre from its own, in cells, and the logarithm of
    width and height relative to a typical object. Unlike distances to the four sides this also
    describes an object that is smaller than a cell and does not cover the cell's centre.

    Attributes:
        stride: pixels per cell.
        object_px: side of a typical object in pixels.
    """

    stride: float
    object_px: float

    def boxes(self, raw: Tensor, cell: Tensor, height: int, width: int) -> Tensor:
        """Boxes in pixels that cells predict.

        Args:
            raw: (m, 4), centre offset x, y and log width, height.
            cell: int64 (m,), index of the cell, flat over image, row, column.
            height: of the map in cells.
            width: of the map in cells.
        """
        raw = raw.float()
        position = torch.stack([cell % width, cell // width % height], 1)
        centre = (position + 0.5 + raw[:, :2]) * self.stride
        half = raw[:, 2:].clamp(max=MAX_LOG_SIZE).exp() * (self.object_px / 2)
        return torch.cat([centre - half, centre + half], 1)

    def decode(
        self, output: Tensor, classes: int, threshold: float, overlap: float, limit: int
    ) -> Detections:
        """Boxes of a whole batch, without duplicates.

        Args:
            output: (n, classes + 4, height, width): logits, then what `boxes` takes.
            classes: number of classes.
            threshold: lowest score that is kept.
            overlap: of two boxes of a class that overlap more (IoU), the weaker one goes.
            limit: most objects per image.
        """
        n, _, height, width = output.shape
        flat = output.float().permute(0, 2, 3, 1).reshape(n, height * width, classes + 4)
        scores = flat[..., :classes].sigmoid().flatten(1)
        scores, index = scores.topk(min(BEFORE_NMS, scores.shape[1]), dim=1)
        image = torch.arange(n, device=output.device)[:, None].expand_as(index)
        keep = scores >= threshold
        scores, index, image = scores[keep], index[keep], image[keep]
        cell, label = index // classes + image * height * width, index % classes
        boxes = self.boxes(flat.flatten(0, 1)[cell, classes:], cell, height, width)
        kept = batched_nms(boxes, scores, image * classes + label, overlap)
        kept = kept[torch.argsort(image[kept], stable=True)]  # stable: scores stay descending
        rank = torch.arange(len(kept), device=kept.device)
        first = torch.searchsorted(image[kept].contiguous(), image[kept].contiguous())
        kept = kept[rank - first < limit]
        return Detections(boxes[kept], scores[kept], label[kept], image[kept])
