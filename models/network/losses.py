"""Losses in float32, scaled to about 1 at random initialisation, as sums and counts.

A loss is one or more `LossTerm`s. The training module adds up their counts over the ranks before
it divides, so two ranks weigh every labelled pixel, box and image as one rank with both halves
would. All losses are finite where nothing is labelled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
FOCAL_PRIOR = 0.01
"""Initial probability of an object in a detection head. All three: T.-Y. Lin et al., "Focal Loss
for Dense Object Detection" (ICCV 2017), sections 3.3 and 4.1."""


@dataclass(frozen=True)
class LossTerm:
    """The sum of a loss over its labels and their number (or weight); scalar float32."""

    sum: Tensor
    count: Tensor


def cross_entropy(logits: Tensor, target: Tensor) -> list[LossTerm]:
    """Return the cross entropy of logits (n, classes) relative to chance, ln(classes).

    Example:
        >>> (term,) = cross_entropy(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
        >>> round(float(term.sum), 3), float(term.count)  # as good as chance
        (4.0, 4.0)
    """
    chance = math.log(max(logits.shape[1], 2))
    total = F.cross_entropy(logits.float(), target, reduction="sum")
    return [LossTerm(total / chance, count_of(len(target), logits))]


def binary_cross_entropy(logits: Tensor, target: Tensor) -> list[LossTerm]:
    """Return the binary cross entropy of (n, classes) relative to chance, ln 2."""
    each = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    return [LossTerm(each.mean(1).sum() / math.log(2), count_of(len(target), logits))]


def squared_error(prediction: Tensor, target: Tensor, variance: Tensor) -> list[LossTerm]:
    """Return the squared error of values (n,) relative to the variance of the targets."""
    error = (prediction.float() - target.float()).square().sum()
    return [LossTerm(error / variance.clamp(min=1e-12), count_of(len(target), prediction))]


def segmentation(
    logits: Tensor, target: Tensor, ignore_index: int, class_weights: Tensor | None = None
) -> list[LossTerm]:
    """Return half the cross entropy over pixels and half the Dice loss over images.

    Each is about 1 by chance. Dice is computed per image, over the classes in the image, so that
    it does not depend on how images are spread over ranks.

    Args:
        logits: (n, classes, height, width).
        target: integers (n, height, width).
        ignore_index: pixels of this value carry no label.
        class_weights: (classes,), for the cross entropy.

    Example:
        >>> mask = torch.tensor([[[0, 1], [1, 0]]])
        >>> logits = 50.0 * F.one_hot(mask).permute(0, 3, 1, 2).float()
        >>> [round(float(term.sum / term.count), 3) for term in segmentation(logits, mask, 255)]
        [0.0, 0.0]
    """
    logits = logits.float()
    classes = logits.shape[1]
    target = target.long()
    labelled = target != ignore_index
    safe = target.where(labelled, torch.zeros_like(target))
    weights = labelled.float()
    if class_weights is not None:
        weights = weights * class_weights.to(logits)[safe]
    each = F.cross_entropy(logits, safe, reduction="none")
    pixels = (each * weights).sum() / math.log(max(classes, 2))

    mask = labelled.unsqueeze(1)
    probability = logits.softmax(1) * mask
    truth = F.one_hot(safe, classes).permute(0, 3, 1, 2) * mask
    overlap = (probability * truth).sum((2, 3))
    sizes = truth.sum((2, 3))
    dice = 2 * overlap / (probability.sum((2, 3)) + sizes).clamp(min=1e-6)
    present = (sizes > 0).float()
    # Absent classes do not count; an unlabelled image has no present class at all.
    mean_dice = (dice * present).sum(1) / present.sum(1).clamp(min=1)
    some = labelled.flatten(1).any(1).float()
    chance = 1 - 1 / max(classes, 2)
    images = ((1 - mean_dice) * some).sum() / chance
    return [LossTerm(0.5 * pixels, weights.sum()), LossTerm(0.5 * images, some.sum())]


def focal(logits: Tensor, truth: Tensor, positives: Tensor) -> LossTerm:
    """Return the focal loss of logits and truth (0 or 1), both (cells, classes).

    It is relative to its value for an object at the prior; `positives` cells (scalar) hold an
    object.
    """
    start = FOCAL_ALPHA * (1 - FOCAL_PRIOR) ** FOCAL_GAMMA * -math.log(FOCAL_PRIOR)
    total = sigmoid_focal_loss(
        logits.float(), truth.float(), alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA, reduction="sum"
    )
    return LossTerm(total / start, positives.float())


def box_overlap(predicted: Tensor, boxes: Tensor, counted: Tensor) -> LossTerm:
    """Return the generalised IoU loss of predicted and true boxes, both (m, 4), xyxy in pixels.

    Only pairs with `counted`, bool (m,), count.
    """
    each = generalized_box_iou_loss(predicted.float(), boxes.float(), reduction="none")
    return LossTerm(each.where(counted, 0.0).sum(), counted.sum().float())


def count_of(number: int, like: Tensor) -> Tensor:
    """Return a count as a tensor on the device of `like`, without waiting for the device."""
    return torch.full((), float(number), device=like.device)


def reduce(terms: Sequence[LossTerm], counts: Tensor, ranks: int = 1) -> Tensor:
    """Return a task's loss: the sum of its terms' quotients; finite where nothing is labelled.

    `counts` (terms,) are sums over all ranks, over which gradients are averaged.
    """
    divisors = torch.where(counts > 0, counts, torch.ones_like(counts)) / ranks
    return torch.stack([term.sum / d for term, d in zip(terms, divisors, strict=True)]).sum()
