"""Detection metrics: F1 at a centre distance every epoch, average precision at the end."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision

from datamodules.stream.batch import DetectionTarget
from models.metrics.matching import match_centres
from models.network.detection_grid import Detections

Array = NDArray[Any]

SCORE_BINS = 1000
MOST_DETECTIONS = [1, 100, 500]


class CentreDistanceF1(Metric):
    """F1 of object centres within a distance, as in the mitosis detection challenges.

    Predictions are matched by `match_detections`, so one pass serves all score thresholds (steps
    of 1 / 1000). The distance is in pixels of the network input. If `positive` is not negative, the
    F1 of that class alone counts, else the mean over classes.
    """

    hits: Tensor
    misses: Tensor
    objects: Tensor

    def __init__(self, classes: int, distance_px: float, positive: int = -1) -> None:
        super().__init__()
        self.classes = classes
        self.positive = positive
        # Bin of each class's best threshold, set by `compute`; 500 without object and prediction.
        self.best: Tensor | None = None
        self.fixed: Tensor | None = None  # thresholds for images that must not choose their own
        self.distance_px = distance_px
        bins = torch.zeros(classes, SCORE_BINS + 1)
        self.add_state("hits", bins, dist_reduce_fx="sum")
        self.add_state("misses", bins.clone(), dist_reduce_fx="sum")
        self.add_state("objects", torch.zeros(classes), dist_reduce_fx="sum")

    def update(self, predicted: Detections, target: DetectionTarget) -> None:
        """Match predictions with the objects of the same images, and count."""
        self.objects += torch.bincount(target.labels, minlength=self.classes)
        if not len(predicted.scores):
            return
        hit = match_detections(predicted, target, self.distance_px) >= 0
        hit = hit.to(predicted.scores.device)
        bins = (predicted.scores.double() * SCORE_BINS + 1e-6).floor().long()
        index = predicted.labels * (SCORE_BINS + 1) + bins
        size = self.hits.numel()
        self.hits += torch.bincount(index[hit], minlength=size).view_as(self.hits)
        self.misses += torch.bincount(index[~hit], minlength=size).view_as(self.hits)

    def compute(self) -> dict[str, Tensor]:
        """Return F1 at the best threshold of each class (or the fixed one), and at 0.5.

        Of the positive class, else the mean over classes with objects or predictions.
        """
        hits = self.hits.flip(1).cumsum(1).flip(1)  # with a score of at least the bin's
        misses = self.misses.flip(1).cumsum(1).flip(1)
        f1 = 2 * hits / (hits + misses + self.objects[:, None])
        occurs = (self.objects > 0) | (misses[:, 0] > 0)
        self.best = f1.nan_to_num(-1).argmax(1).where(occurs, SCORE_BINS // 2)
        chosen = self.best if self.fixed is None else self.fixed.to(f1.device)
        best = f1.gather(1, chosen[:, None])[:, 0].where(occurs, torch.nan)
        half = f1[:, SCORE_BINS // 2]
        if self.positive >= 0:
            return {"f1_best": best[self.positive], "f1_at_half": half[self.positive]}
        return {"f1_best": best.nanmean(), "f1_at_half": half.nanmean()}


class BoxAveragePrecision(MeanAveragePrecision):
    """COCO's mean average precision over IoU thresholds, classes and the images of all ranks."""

    def __init__(self) -> None:
        super().__init__(backend="faster_coco_eval", max_detection_thresholds=MOST_DETECTIONS)
        self.warn_on_many_detections = False

    def update(self, predicted: Detections, target: DetectionTarget) -> None:  # type: ignore[override]
        """Keep the boxes of each image; images without any are not needed."""
        kept = ((predicted, ("boxes", "scores", "labels")), (target, ("boxes", "labels")))
        for image in sorted({*predicted.image.tolist(), *target.image.tolist()}):
            found, truth = (
                {name: getattr(objects, name)[objects.image == image].cpu() for name in names}
                for objects, names in kept
            )
            super().update([found], [truth])

    def compute(self) -> dict[str, Tensor]:
        """Return mAP and mAP at an IoU of 0.5, in [0, 1]; NaN without objects."""
        scores = super().compute()
        return {n: scores[n].where(scores[n] >= 0, torch.nan) for n in ("map", "map_50")}

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        """Gather whole lists: image by image, ranks with fewer images would block the others."""
        for name in self._defaults:
            of_ranks: list[Any] = [None] * dist.get_world_size(process_group)
            dist.all_gather_object(of_ranks, getattr(self, name), process_group)
            setattr(self, name, [item for items in of_ranks for item in items])


def match_detections(predicted: Detections, target: DetectionTarget, distance_px: float) -> Tensor:
    """Match predictions with objects of the same image and class.

    They are matched in descending order of score; see `match_centres`.

    Returns:
        int64 (m,), on the CPU: index of the object in `target`, -1 for none.
    """
    matches = np.full(len(predicted.scores), -1, np.int64)
    order = np.argsort(-predicted.scores.cpu().numpy(), kind="stable")
    centres, groups = _centres_and_groups(predicted)
    true_centres, true_groups = _centres_and_groups(target)
    for group in np.intersect1d(groups, true_groups):
        rows = order[groups[order] == group]
        objects = np.flatnonzero(true_groups == group)
        found = match_centres(centres[rows], true_centres[objects], distance_px)
        matches[rows] = np.where(found >= 0, objects[found], -1)
    return torch.from_numpy(matches)


def _centres_and_groups(objects: Detections | DetectionTarget) -> tuple[Array, Array]:
    """Return centres and one number per pair of image and class (fewer than 2^20 classes)."""
    centres = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    groups = objects.image.cpu() * 2**20 + objects.labels.cpu()
    return centres.double().cpu().numpy(), groups.numpy()
