"""Metrics of whole images: classes and independent labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

AUROC_BINS = 4096
AUROC_LOGIT = 16.0  # logits beyond it, in float32 probabilities of 1, are one bin


class ClassScores(Metric):
    """Macro F1, balanced accuracy, accuracy, and F1 of a positive class.

    Classes that neither truth nor prediction contains are left out of the macro F1; balanced
    accuracy is the mean recall of the classes that the truth contains.

    Args:
        classes: number of classes.
        positive: index of the positive class; -1 for none.
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, classes: int, positive: int = -1) -> None:
        super().__init__()
        self.classes = classes
        self.positive = positive
        self.add_state("matrix", torch.zeros(classes, classes), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Count.

        Args:
            probabilities: (n, classes).
            target: int64 (n,).
        """
        self.matrix += confusion(probabilities.argmax(1), target, self.classes)

    def compute(self) -> dict[str, Tensor]:
        """Scores in [0, 1]."""
        hits = self.matrix.diagonal()
        truth, found = self.matrix.sum(1), self.matrix.sum(0)
        f1 = 2 * hits / (truth + found)  # 0 / 0 is NaN: the class does not occur
        scores = {
            "f1_macro": f1.nanmean(),
            "balanced_accuracy": (hits / truth).nanmean(),
            "accuracy": hits.sum() / truth.sum(),
        }
        if self.positive >= 0:
            scores["f1_positive"] = f1[self.positive]
        return scores


class LabelScores(Metric):
    """Macro F1 of independent labels at a probability of 0.5.

    Args:
        labels: number of labels.
    """

    full_state_update = False
    hits: Tensor
    sizes: Tensor

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros(labels), dist_reduce_fx="sum")
        self.add_state("sizes", torch.zeros(labels), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Count.

        Args:
            probabilities: (n, labels).
            target: 0 or 1, (n, labels).
        """
        found, truth = (probabilities >= 0.5).float(), target.float()
        self.hits += (found * truth).sum(0)
        self.sizes += (found + truth).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Scores in [0, 1]."""
        return {"f1_macro": (2 * self.hits / self.sizes).nanmean()}


class Auroc(Metric):
    """Area under the ROC curve, macro, over the classes that the truth both has and lacks.

    Scores are counted in bins that are equally wide in the logit, fine near 0 and 1 as well;
    scores of one bin are ties.

    Args:
        classes: number of classes.
        multilabel: classes are independent of each other.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, classes: int, multilabel: bool = False) -> None:
        super().__init__()
        self.classes = classes
        self.multilabel = multilabel
        self.add_state("counts", torch.zeros(classes, 2, AUROC_BINS), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Count.

        Args:
            probabilities: (n, classes).
            target: int64 (n,), or 0 and 1 (n, classes) for a multilabel task.
        """
        truth = target.long()
        if not self.multilabel:
            truth = F.one_hot(truth, self.classes)
        logit = probabilities.float().logit(eps=1e-7) / AUROC_LOGIT
        bins = ((logit.clamp(-1, 1) + 1) / 2 * (AUROC_BINS - 1)).round().long()
        number = torch.arange(self.classes, device=truth.device)
        index = (number * 2 + truth) * AUROC_BINS + bins
        counts = torch.bincount(index.reshape(-1), minlength=self.counts.numel())
        self.counts += counts.view_as(self.counts)

    def compute(self) -> dict[str, Tensor]:
        """Score in [0, 1]."""
        negative, positive = self.counts[:, 0], self.counts[:, 1]
        below = negative.cumsum(1) - negative / 2
        pairs = positive.sum(1) * negative.sum(1)
        return {"auroc": ((positive * below).sum(1) / pairs).nanmean()}


def confusion(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Counts by (true class, predicted class), int64 (classes, classes)."""
    index = target.reshape(-1) * classes + predicted.reshape(-1)
    return torch.bincount(index, minlength=classes**2).view(classes, classes)
