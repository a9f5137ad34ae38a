"""Metrics of classes, independent labels and pixels; NaN where the images do not define them.

Their states are sums: small, and correct however the ranks share the images.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

AUROC_BINS = 4096
AUROC_LOGIT = 16.0  # logits beyond it, in float32 probabilities of 1, share one bin


class ClassScores(MulticlassConfusionMatrix):
    """Macro F1, balanced accuracy, accuracy, and F1 of a positive class, all in [0, 1].

    Macro F1 leaves out classes that occur neither in the truth nor in the predictions; balanced
    accuracy is the mean recall of the classes in the truth. A negative index means that no class
    is the positive one.
    """

    def __init__(self, classes: int, positive: int = -1) -> None:
        super().__init__(classes, validate_args=False)
        self.positive = positive

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the scores by name."""
        matrix = self.confmat.float()
        hits, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        f1 = 2 * hits / (truth + predicted)  # 0 / 0 is NaN: the class does not occur
        scores = {
            "f1_macro": f1.nanmean(),
            "balanced_accuracy": (hits / truth).nanmean(),
            "accuracy": hits.sum() / truth.sum(),
        }
        if self.positive >= 0:
            scores["f1_positive"] = f1[self.positive]
        return scores


class PixelScores(MulticlassConfusionMatrix):
    """Dice and IoU over all labelled pixels in [0, 1], averaged over the classes that occur."""

    def __init__(self, classes: int, ignore_index: int, **settings: Any) -> None:
        super().__init__(classes, ignore_index, validate_args=False, **settings)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the scores by name."""
        hits = self.confmat.diagonal().float()
        truth, predicted = self.confmat.sum(1).float(), self.confmat.sum(0).float()
        return {
            "dice": (2 * hits / (truth + predicted)).nanmean(),
            "miou": (hits / (truth + predicted - hits)).nanmean(),
        }


class LabelScores(Metric):
    """Macro F1 of independent labels at a probability of 0.5."""

    hits: Tensor
    sizes: Tensor

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros(labels), dist_reduce_fx="sum")
        self.add_state("sizes", torch.zeros(labels), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Count probabilities (n, labels) against targets of 0 and 1 (n, labels)."""
        predicted, truth = (probabilities >= 0.5).float(), target.float()
        self.hits += (predicted * truth).sum(0)
        self.sizes += (predicted + truth).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Return the score by name."""
        return {"f1_macro": (2 * self.hits / self.sizes).nanmean()}


class Auroc(Metric):
    """Macro area under the ROC curve, over the classes with positive and negative images.

    Scores are counted in bins of equal width in the logit, which are fine near 0 and 1 as well;
    scores in one bin are ties.
    """

    counts: Tensor

    def __init__(self, classes: int, multilabel: bool = False) -> None:
        super().__init__()
        self.classes = classes
        self.multilabel = multilabel
        self.add_state("counts", torch.zeros(classes, 2, AUROC_BINS), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Count probabilities (n, classes); multilabel targets have the same shape."""
        truth = target.long() if self.multilabel else F.one_hot(target.long(), self.classes)
        logit = probabilities.float().logit(eps=1e-7) / AUROC_LOGIT
        bins = ((logit.clamp(-1, 1) + 1) / 2 * (AUROC_BINS - 1)).round().long()
        classes = torch.arange(self.classes, device=truth.device)
        index = (classes * 2 + truth) * AUROC_BINS + bins
        counts = torch.bincount(index.reshape(-1), minlength=self.counts.numel())
        self.counts += counts.view_as(self.counts)

    def compute(self) -> dict[str, Tensor]:
        """Return the score by name."""
        negative, positive = self.counts[:, 0], self.counts[:, 1]
        below = negative.cumsum(1) - negative / 2
        pairs = positive.sum(1) * negative.sum(1)
        return {"auroc": ((positive * below).sum(1) / pairs).nanmean()}
