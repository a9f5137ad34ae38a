"""COCO's mean average precision of boxes, for a final evaluation: it keeps every box."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.utilities import dim_zero_cat

from datamodules.batch import DetectionTarget
from models.detection import Detections
from models.progress import ranks

MOST_DETECTIONS = [1, 100, 500]


class BoxAveragePrecision(Metric):
    """Mean average precision over IoU thresholds, classes and all images of all ranks.

    torchmetrics' own metric gathers image by image, which never ends where ranks hold different
    numbers of images; here boxes lie flat, and it computes when they are together.
    """

    full_state_update = False
    found: list[Tensor] | Tensor
    found_at: list[Tensor] | Tensor
    truth: list[Tensor] | Tensor
    truth_at: list[Tensor] | Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("found", "found_at", "truth", "truth_at"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self._images = 0

    def update(self, predicted: Detections, target: DetectionTarget) -> None:
        """Keep the boxes; images without any are not needed.

        Args:
            predicted: flat over images.
            target: flat over the same images.
        """
        for state, value in (
            (self.found, torch.cat([predicted.boxes, predicted.scores[:, None]], 1).float()),
            (self.found_at, torch.stack([self._number(predicted.image), predicted.labels], 1)),
            (self.truth, target.boxes.float()),
            (self.truth_at, torch.stack([self._number(target.image), target.labels], 1)),
        ):
            if isinstance(state, list):
                state.append(value)
        last = [int(image.max()) for image in (predicted.image, target.image) if len(image)]
        self._images += max(last, default=-1) + 1

    def compute(self) -> dict[str, Tensor]:
        """Scores in [0, 1]; NaN without objects."""
        metric = MeanAveragePrecision(
            backend="faster_coco_eval",
            max_detection_thresholds=MOST_DETECTIONS,
            sync_on_compute=False,  # everything is gathered already
        )
        metric.warn_on_many_detections = False
        nothing = torch.full((), torch.nan)
        if not len(self.truth_at) or not len(truth_at := dim_zero_cat(self.truth_at)):
            return {"map": nothing, "map_50": nothing}
        found_at = dim_zero_cat(self.found_at)
        numbers: Tensor = torch.unique(torch.cat([found_at[:, 0], truth_at[:, 0]]))
        found = _by_image(dim_zero_cat(self.found).cpu(), found_at.cpu(), numbers.cpu())
        truth = _by_image(dim_zero_cat(self.truth).cpu(), truth_at.cpu(), numbers.cpu())
        metric.update(
            [{"boxes": v[:, :4], "scores": v[:, 4], "labels": at} for v, at in found],
            [{"boxes": v, "labels": at} for v, at in truth],
        )
        scores = metric.compute()
        return {n: torch.where(scores[n] < 0, torch.nan, scores[n]) for n in ("map", "map_50")}

    def _number(self, image: Tensor) -> Tensor:
        """A number that no image of another batch or rank has."""
        rank = dist.get_rank() if ranks() > 1 else 0
        return (image + self._images) * ranks() + rank


def _by_image(values: Tensor, at: Tensor, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Values and labels of each image, in order of the numbers of the images."""
    order = torch.argsort(at[:, 0], stable=True)
    place = torch.searchsorted(numbers, at[order, 0])
    counts = torch.bincount(place, minlength=len(numbers)).tolist()
    labels = at[order, 1]
    return list(zip(torch.split(values[order], counts), torch.split(labels, counts), strict=True))
