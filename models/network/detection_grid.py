"""The geometry of dense, anchor-free detection: from maps to boxes and back."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from datamodules.stream.batch import DetectionTarget

BEFORE_NMS = 1000
MAX_LOG_SIZE = 4.0  # e^4 times the typical size: keeps exp() finite


@dataclass
class Detections:
    """Predicted objects of a batch of images, flat over the images."""

    boxes: Tensor  # float32 (m, 4), x1, y1, x2, y2 in pixels of the network input
    scores: Tensor  # float32 (m,), in [0, 1]; descending within an image
    labels: Tensor  # int64 (m,), class index
    image: Tensor  # int64 (m,), ascending


@dataclass(frozen=True)
class DetectionGrid:
    """Cells and boxes of one detection map.

    A cell predicts the offset of the object's centre from its own, in cells, and the logarithm of
    width and height relative to a typical object. Unlike distances to the four sides this also
    describes an object that is smaller than a cell and does not cover the cell's centre.

    Example:
        >>> grid = DetectionGrid(stride=4.0, object_px=8.0)
        >>> grid.boxes(torch.zeros(1, 4), torch.tensor([9]), height=8, width=8)
        tensor([[ 2.,  2., 10., 10.]])
    """

    stride: float  # pixels per cell
    object_px: float  # side of a typical object in pixels

    def boxes(self, raw: Tensor, cell: Tensor, height: int, width: int) -> Tensor:
        """Return the boxes in pixels that cells predict.

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
        """Return the boxes of a whole batch, without duplicates.

        Args:
            output: (n, classes + 4, height, width): logits, then the input of `boxes`.
            classes: number of classes.
            threshold: lowest score that is kept.
            overlap: IoU of two boxes of a class above which the weaker one is dropped.
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

    def assign(
        self, target: DetectionTarget, images: int, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Assign every object the 3 x 3 cells around its centre, as far as they lie in its box.

        A cell that holds an object's centre is assigned to that object first, however small the
        others are; among equals the smallest box wins, then the first. So only objects that share
        one centre cell can hide each other. Centre sampling after Z. Tian et al., "FCOS: A Simple
        and Strong Anchor-free Object Detector" (TPAMI 2020), section 3.2.

        Target boxes are in pixels of the network input, the map has `height` x `width` cells.

        Returns:
            For m objects: int64 (9 m,), the cells around each, flat over image, row, column;
            int64 (9 m,), the index of the object; bool (9 m,), whether it owns the cell. Shapes
            depend on the number of objects alone, so that no GPU is waited for.
        """
        boxes = target.boxes
        device = boxes.device
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        column, row = (centre / self.stride).floor().long().unbind(1)
        home = torch.stack([column.clamp(0, width - 1), row.clamp(0, height - 1)], 1)
        steps = torch.arange(-1, 2, device=device)
        around = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).view(1, 9, 2)
        cells = home[:, None] + around
        points = (cells + 0.5) * self.stride
        covered = (points >= boxes[:, None, :2]) & (points <= boxes[:, None, 2:])
        x, y = cells.unbind(-1)
        in_map = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        is_home = (around == 0).all(-1)
        possible = (covered.all(-1) & in_map) | is_home

        area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
        by_area = torch.argsort(area, stable=True)
        rank = torch.empty_like(by_area)
        rank[by_area] = torch.arange(len(boxes), device=device)
        # Lower is stronger: centre cells before all others, then the smaller box.
        strength = rank[:, None] + torch.where(is_home, 0, len(boxes))
        strength = strength.where(possible, 2 * len(boxes))
        flat = ((target.image[:, None] * height + y) * width + x).where(possible, 0).view(-1)
        best = torch.full((images * height * width,), 2 * len(boxes), device=device)
        best.scatter_reduce_(0, flat, strength.view(-1), "amin")
        assigned = possible.view(-1) & (best[flat] == strength.view(-1))
        return flat, torch.arange(9 * len(boxes), device=device) // 9, assigned
