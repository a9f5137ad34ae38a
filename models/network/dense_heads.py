"""The heads of dense tasks: a class per pixel, objects as boxes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.core.errors import ConfigError
from datamodules.core.records import Task
from datamodules.stream.batch import DetectionTarget
from models.network import losses
from models.network.detection_grid import DetectionGrid, Detections
from models.network.heads import Features, Head, init_head
from models.network.losses import LossTerm

SCORE_THRESHOLD, NMS_IOU = 0.05, 0.5
MOST_OBJECTS = 500  # per image


class SegmentationHead(Head):
    """A class per pixel, from the decoder's map of `width` channels.

    `class_weights` are factors of the classes in the cross entropy.

    Example:
        >>> from datamodules.core.records import TaskKind
        >>> task = Task("glands", TaskKind.SEGMENTATION, ("background", "gland"))
        >>> head = SegmentationHead(task, width=4)
        >>> features = Features(torch.rand(2, 8), torch.rand(2, 4, 8, 8), size=(32, 32))
        >>> head.predict(head(features)).shape
        torch.Size([2, 32, 32])
    """

    class_weights: Tensor | None

    def __init__(self, task: Task, width: int, class_weights: Sequence[float] = ()) -> None:
        super().__init__(task)
        if class_weights and len(class_weights) != len(task.classes):
            raise ConfigError(
                f"task {task.name}: {len(class_weights)} class weights for "
                f"{len(task.classes)} classes; give one for each of {', '.join(task.classes)}"
            )
        self.conv = init_head(nn.Conv2d(width, len(task.classes), 1))
        weights = torch.tensor(class_weights) if class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, features: Features) -> Tensor:
        """Return logits (n, classes, height, width) at the size of the network input."""
        if features.dense is None:
            raise ValueError(f"task {self.task.name} needs the decoder's map")
        coarse: Tensor = self.conv(features.dense)
        return F.interpolate(coarse.float(), features.size, mode="bilinear", align_corners=False)

    def loss(self, output: Tensor, target: Tensor) -> list[LossTerm]:
        """Return cross entropy and Dice loss, half each."""
        return losses.segmentation(output, target, self.task.ignore_index, self.class_weights)

    def predict(self, output: Tensor) -> Tensor:
        """Return the most probable classes (n, height, width)."""
        return output.argmax(1)


class DetectionHead(Head):
    """Objects as boxes, on the one pyramid level where a typical object spans about 4 cells.

    The tower's maps have `width` channels; `grid` has the stride of that level.

    Example:
        >>> from datamodules.core.records import TaskKind
        >>> task = Task("mitosis", TaskKind.DETECTION, ("mitosis",))
        >>> head = DetectionHead(task, width=4, level=0, grid=DetectionGrid(4.0, 16.0))
        >>> output = head(Features(torch.rand(2, 8), tower={0: torch.rand(2, 4, 8, 8)}))
        >>> len(head.predict(output).boxes)  # random weights: no score above the threshold
        0
    """

    def __init__(self, task: Task, width: int, level: int, grid: DetectionGrid) -> None:
        super().__init__(task)
        self.level = level
        self.grid = grid
        self.classes = len(task.classes)
        self.conv = init_head(nn.Conv2d(width, self.classes + 4, 1))
        prior = losses.FOCAL_PRIOR
        with torch.no_grad():
            self.conv.get_parameter("bias")[: self.classes] = -math.log((1 - prior) / prior)

    def forward(self, features: Features) -> Tensor:
        """Return class logits, centre offset and log size of every cell, (n, classes + 4, h, w)."""
        out: Tensor = self.conv(features.tower[self.level])
        return out

    def loss(self, output: Tensor, target: DetectionTarget) -> list[LossTerm]:
        """Return focal loss over all cells and generalised IoU loss over cells with an object."""
        n, channels, height, width = output.shape
        flat = output.float().permute(0, 2, 3, 1).reshape(-1, channels)
        cell, box, assigned = self.grid.assign(target, n, height, width)
        truth = torch.zeros_like(flat[:, : self.classes])
        truth.view(-1).scatter_reduce_(
            0, cell * self.classes + target.labels[box], assigned.to(truth), "amax"
        )
        boxes = self.grid.boxes(flat[cell, self.classes :], cell, height, width)
        score = losses.focal(flat[:, : self.classes], truth, assigned.sum())
        overlap = losses.box_overlap(boxes, target.boxes[box], assigned)
        # At the start the focal term is 1 and boxes of typical size overlap about by half.
        return [LossTerm(term.sum / 1.5, term.count) for term in (score, overlap)]

    def predict(self, output: Tensor) -> Detections:
        """Return boxes with scores."""
        return self.grid.decode(output, self.classes, SCORE_THRESHOLD, NMS_IOU, MOST_OBJECTS)
