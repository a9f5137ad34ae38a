"""Which cell of a detection map answers for which object."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.batch import DetectionTarget


class Assignment(NamedTuple):
    """The cells that hold an object.

    Attributes:
        cell: int64 (m,), index into the cells of all images, flat over image, row, column;
            ascending.
        box: int64 (m,), index of the object that the cell answers for.
    """

    cell: Tensor
    box: Tensor


def assign(
    target: DetectionTarget, images: int, height: int, width: int, stride: float
) -> Assignment:
    """Give every object the 3 x 3 cells around its centre, as far as they lie in its box.

    A cell that holds an object's centre belongs to that object first, however small the others
    are; among equals the smallest box wins, then the first. So only objects that share one centre
    cell can hide each other. Vectorised over the whole batch; centre sampling after Z. Tian et
    al., "FCOS: A Simple and Strong Anchor-free Object Detector" (TPAMI 2020), section 3.2.

    Args:
        target: boxes in pixels of the network input.
        images: number of images.
        height: of the map in cells.
        width: of the map in cells.
        stride: pixels per cell.
    """
    boxes = target.boxes
    device = boxes.device
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    limit = torch.tensor([width - 1, height - 1], device=device)
    home = (centre / stride).floor().long().clamp(min=0).minimum(limit)
    steps = torch.arange(-1, 2, device=device)
    around = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).view(1, 9, 2)
    cells = home[:, None] + around
    points = (cells + 0.5) * stride
    covered = (points >= boxes[:, None, :2]) & (points <= boxes[:, None, 2:])
    in_map = (cells >= 0) & (cells <= limit)
    is_home = (around == 0).all(-1)
    possible = (covered.all(-1) & in_map.all(-1)) | is_home

    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    by_area = torch.argsort(area, stable=True)
    rank = torch.empty_like(by_area)
    rank[by_area] = torch.arange(len(boxes), device=device)
    # Lower is stronger: centre cells before all others, then the smaller box.
    strength = rank[:, None] + torch.where(is_home, 0, len(boxes))
    flat = (target.image[:, None] * height + cells[..., 1]) * width + cells[..., 0]

    nobody = 2 * len(boxes)
    owner = torch.full((images * height * width,), nobody, dtype=torch.int64, device=device)
    owner.scatter_reduce_(0, flat[possible], strength[possible], "amin")
    cell = torch.nonzero(owner < nobody).squeeze(1)
    if len(boxes) == 0:
        return Assignment(cell, cell)
    return Assignment(cell, by_area[owner[cell] % len(boxes)])
