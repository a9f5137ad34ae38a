"""Detection's metric of every epoch: F1 at a centre distance."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.utilities import dim_zero_cat

from datamodules.stream.batch import DetectionTarget
from models.distributed import ranks
from models.network.detection import Detections

SCORE_BINS = 1000


class CentreDistanceF1(Metric):
    """F1 of object centres within a distance, as the mitosis challenges score.

    Within each image and class, predictions take, in descending order of score, the nearest
    object that is still free and not farther than the distance. So a prediction's fate does not
    depend on weaker ones, and one pass serves all score thresholds (steps of 1 / 1000).

    Args:
        classes: number of classes.
        distance_px: largest distance of matching centres, in pixels of the network input.
    """

    full_state_update = False
    hits: Tensor
    misses: Tensor
    objects: Tensor

    def __init__(self, classes: int, distance_px: float) -> None:
        super().__init__()
        self.classes = classes
        self.distance_px = distance_px
        bins = torch.zeros(classes, SCORE_BINS + 1)
        self.add_state("hits", bins, dist_reduce_fx="sum")
        self.add_state("misses", bins.clone(), dist_reduce_fx="sum")
        self.add_state("objects", torch.zeros(classes), dist_reduce_fx="sum")

    def update(self, predicted: Detections, target: DetectionTarget) -> None:
        """Match and count.

        Args:
            predicted: descending scores within an image.
            target: of the same images.
        """
        self.objects += torch.bincount(target.labels, minlength=self.classes)
        if not len(predicted.scores):
            return
        hit = match(predicted, target, self.distance_px).to(predicted.scores.device)
        bins = (predicted.scores.double() * SCORE_BINS + 1e-6).floor().long()
        index = predicted.labels * (SCORE_BINS + 1) + bins
        size = self.hits.numel()
        self.hits += torch.bincount(index[hit], minlength=size).view_as(self.hits)
        self.misses += torch.bincount(index[~hit], minlength=size).view_as(self.hits)

    def compute(self) -> dict[str, Tensor]:
        """Scores in [0, 1]: macro F1 at the best threshold of each class, and at 0.5.

        Classes without objects and predictions are left out.
        """
        hits = self.hits.flip(1).cumsum(1).flip(1)  # with a score of at least the bin's
        misses = self.misses.flip(1).cumsum(1).flip(1)
        f1 = 2 * hits / (hits + misses + self.objects[:, None])
        half = SCORE_BINS // 2
        occurs = self.objects > 0
        nan = torch.full_like(self.objects, torch.nan)
        best = torch.where(occurs | (misses[:, 0] > 0), f1.nan_to_num(-1).amax(1), nan)
        return {"f1_best": best.nanmean(), "f1_at_half": f1[:, half].nanmean()}


def match(predicted: Detections, target: DetectionTarget, distance_px: float) -> Tensor:
    """Which predictions hit an object: bool (m,), on the CPU; see `pairs`."""
    return pairs(predicted, target, distance_px) >= 0


def pairs(predicted: Detections, target: DetectionTarget, distance_px: float) -> Tensor:
    """Which object each prediction hits.

    Args:
        predicted: flat over images.
        target: flat over the same images.
        distance_px: largest distance between centres.

    Returns:
        int64 (m,), on the CPU: index of the object in `target`, -1 for none.
    """
    taken = np.full(len(predicted.scores), -1, np.int64)
    found = _centres(predicted.boxes)
    truth = _centres(target.boxes)
    order = np.argsort(-predicted.scores.cpu().numpy(), kind="stable")
    found_group = _groups(predicted.image, predicted.labels)
    truth_group = _groups(target.image, target.labels)
    for group in np.intersect1d(found_group, truth_group):
        mine = order[found_group[order] == group]
        objects = np.flatnonzero(truth_group == group)
        apart = np.linalg.norm(found[mine][:, None] - truth[objects][None], axis=-1)
        gone = np.zeros(len(objects), bool)
        for row in np.flatnonzero((apart <= distance_px).any(1)):
            distances = np.where(gone, np.inf, apart[row])
            nearest = int(distances.argmin())
            if distances[nearest] <= distance_px:
                gone[nearest] = True
                taken[mine[row]] = objects[nearest]
    return torch.from_numpy(taken)


def _centres(boxes: Tensor) -> NDArray[np.float64]:
    centres: NDArray[np.float64] = ((boxes[:, :2] + boxes[:, 2:]) / 2).double().cpu().numpy()
    return centres


def _groups(image: Tensor, label: Tensor) -> NDArray[np.int64]:
    """One number for each pair of image and class (fewer than 2^20 classes)."""
    groups: NDArray[np.int64] = (image.cpu() * 2**20 + label.cpu()).numpy()
    return groups


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
