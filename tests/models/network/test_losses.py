from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from datamodules.core.records import Task, TaskKind
from datamodules.stream.batch import DetectionTarget
from models.network import losses
from models.network.dense_heads import DetectionHead, SegmentationHead
from models.network.detection_grid import DetectionGrid
from models.network.heads import ClassificationHead, Features, RegressionHead
from tests.support.synthetic_batches import draw_boxes

NO_BOXES = DetectionTarget(
    torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
)
DIM = 32


def features(images: int = 8, dtype: torch.dtype = torch.float32) -> Features:
    g = torch.Generator().manual_seed(0)
    return Features(
        torch.randn(images, DIM, generator=g).to(dtype),
        torch.randn(images, DIM, 16, 16, generator=g).to(dtype),
        {0: torch.randn(images, DIM, 16, 16, generator=g).to(dtype)},
        (64, 64),
    )


def classification(classes: int) -> ClassificationHead:
    names = tuple(f"c{i}" for i in range(classes))
    return ClassificationHead(Task("t", TaskKind.CLASSIFICATION, names), DIM)


def segmentation(classes: int, weights: tuple[float, ...] = ()) -> SegmentationHead:
    names = tuple(f"c{i}" for i in range(classes))
    return SegmentationHead(Task("t", TaskKind.SEGMENTATION, names), DIM, weights)


def detection(classes: int = 2) -> DetectionHead:
    names = tuple(f"c{i}" for i in range(classes))
    return DetectionHead(Task("t", TaskKind.DETECTION, names), DIM, 0, DetectionGrid(4.0, 16.0))


def regression(**bounds: float) -> RegressionHead:
    return RegressionHead(Task("t", TaskKind.REGRESSION, **bounds), DIM)


def value(head, target, given: Features | None = None) -> torch.Tensor:
    terms = head.loss(head(given or features()), target)
    return losses.reduce(terms, torch.stack([t.count for t in terms]))


def random_mask(classes: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randint(0, classes, (8, 64, 64), generator=g)


def cases():
    g = torch.Generator().manual_seed(2)
    yield "2 classes", classification(2), torch.randint(0, 2, (8,), generator=g)
    yield "9 classes", classification(9), torch.randint(0, 9, (8,), generator=g)
    labels = ClassificationHead(Task("t", TaskKind.MULTILABEL, ("a", "b", "c")), DIM)
    yield "multilabel", labels, torch.randint(0, 2, (8, 3), generator=g)
    yield "2 regions", segmentation(2), random_mask(2)
    yield "6 regions", segmentation(6), random_mask(6)
    yield "weighted regions", segmentation(2, (0.2, 1.8)), random_mask(2)
    yield "objects", detection(), draw_boxes(8, g)
    evenly = torch.linspace(0, 1, 8)
    yield "bounded", regression(low=0, high=1), evenly
    yield "wide range", regression(low=-300, high=500), evenly * 800 - 300
    yield "free", regression(), 70 + 30 * torch.randn(8, generator=g)


@pytest.mark.parametrize(("head", "target"), [pytest.param(h, t, id=n) for n, h, t in cases()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_is_about_one_before_training(head, target, dtype):
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss = value(head, target, features(dtype=dtype))
    assert loss.dtype == torch.float32
    assert 0.6 < loss.item() < 1.5


def degenerate():
    ignored = torch.full((8, 64, 64), 255)
    yield "one class", classification(1), torch.zeros(8, dtype=torch.int64)
    yield "no image", classification(3), torch.zeros(0, dtype=torch.int64)
    yield "one region", segmentation(1), torch.zeros(8, 64, 64, dtype=torch.int64)
    yield "all ignored", segmentation(3), ignored
    yield "weights of zero", segmentation(2, (0.0, 1.0)), torch.zeros(8, 64, 64).long()
    yield "no object", detection(), NO_BOXES
    tiny = torch.tensor([[10.0, 10, 10, 10], [63.9, 63.9, 70, 70], [-9, -9, 2, 2]])
    yield "empty boxes", detection(), DetectionTarget(tiny, torch.zeros(3).long(), torch.arange(3))
    yield "bounds met", regression(low=0, high=1), torch.tensor([0.0, 1.0] * 4)
    yield "equal free targets", regression(), torch.full((8,), 3.0)


@pytest.mark.parametrize(("head", "target"), [pytest.param(h, t, id=n) for n, h, t in degenerate()])
@pytest.mark.parametrize("mixed", [False, True])
def test_loss_and_gradient_are_finite_with_few_or_no_labels(head, target, mixed):
    images = 0 if isinstance(target, torch.Tensor) and len(target) == 0 else 8
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        loss = value(head, target, features(images))
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_huge_features_in_half_precision_keep_the_loss_finite():
    given = features(dtype=torch.bfloat16)
    given.tower[0] *= 1e4
    with torch.autocast("cpu", torch.bfloat16):
        loss = value(detection(), draw_boxes(8, torch.Generator().manual_seed(0)), given)
    assert math.isfinite(loss.item())


def test_ignored_pixels_do_not_change_the_loss():
    head, mask = segmentation(3), random_mask(3)
    mask[:, :32] = 255
    given = features()
    before = value(head, mask, given)
    given.dense[..., :6, :] += 100  # cells whose interpolation stays above row 32
    torch.testing.assert_close(value(head, mask, given), before)


def test_a_perfect_mask_has_no_loss_and_its_opposite_a_large_one():
    mask = random_mask(2)
    logits = 50.0 * F.one_hot(mask, 2).permute(0, 3, 1, 2).float()
    right = losses.segmentation(logits, mask, 255)
    wrong = losses.segmentation(-logits, mask, 255)
    assert sum((t.sum / t.count).item() for t in right) < 1e-3
    assert sum((t.sum / t.count).item() for t in wrong) > 5


def test_class_weights_scale_the_cross_entropy():
    logits = torch.randn(2, 2, 4, 4)
    mask = torch.zeros(2, 4, 4, dtype=torch.int64)
    mask[:, :2] = 1
    weights = torch.tensor([0.25, 3.0])
    ours = losses.segmentation(logits, mask, 255, weights)[0]
    theirs = F.cross_entropy(logits, mask, weights) / math.log(2)
    torch.testing.assert_close(2 * ours.sum / ours.count, theirs)


def test_sums_and_counts_of_two_halves_add_up_to_the_whole():
    g = torch.Generator().manual_seed(3)
    boxes = draw_boxes(8, g)
    mask = random_mask(3)
    mask[5] = 255
    given = features()
    for head, whole, first, last in (
        (classification(4), torch.arange(8) % 4, torch.arange(3) % 4, torch.arange(3, 8) % 4),
        (segmentation(3), mask, mask[:3], mask[3:]),
        (
            detection(),
            boxes,
            boxes.head(3),
            DetectionTarget(boxes.boxes[6:], boxes.labels[6:], boxes.image[6:] - 3),
        ),
    ):
        output = head(given)
        together = head.loss(output, whole)
        parts = [head.loss(output[:3], first), head.loss(output[3:], last)]
        for i, term in enumerate(together):
            torch.testing.assert_close(term.sum, parts[0][i].sum + parts[1][i].sum)
            torch.testing.assert_close(term.count, parts[0][i].count + parts[1][i].count)


def test_unbounded_regression_standardises_by_all_targets_seen():
    head = regression()
    targets = 40 + 5 * torch.randn(64, generator=torch.Generator().manual_seed(4))
    for batch in targets.split(16):
        value(head, batch, features(16))
    torch.testing.assert_close(head.mean, targets.mean(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(head.variance, targets.var(unbiased=False), rtol=1e-3, atol=1e-3)
