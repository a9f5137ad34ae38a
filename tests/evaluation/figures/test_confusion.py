"""Confusion matrices and curves agree with scikit-learn and with the validation metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, confusion_matrix

from datamodules.core.records import Task, TaskKind
from datamodules.stream.batch import DetectionTarget
from evaluation.figures.confusion import count_drawings, read_counts
from models.metrics.detection import match_detections
from models.metrics.task_metrics import TaskMetrics
from models.network.detection_grid import Detections
from models.tasks import TaskSpec
from tests.support.synthetic_batches import draw_boxes


def board_of(task: Task) -> tuple[TaskSpec, TaskMetrics]:
    spec = TaskSpec("data", task, 0.5)
    return spec, TaskMetrics([spec])


def test_the_confusion_matrix_and_the_curve_of_two_classes_are_those_of_scikit_learn() -> None:
    task = Task("t", TaskKind.CLASSIFICATION, ("tumour", "normal"), positive="tumour")
    spec, board = board_of(task)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300)
    share = np.clip(rng.normal(0.6 - 0.2 * truth, 0.2), 0.01, 0.99)  # of tumour, class 0
    probabilities = torch.tensor(np.stack([share, 1 - share], 1), dtype=torch.float32)
    for rows in (slice(0, 100), slice(100, 300)):
        board.update(spec, probabilities[rows], torch.from_numpy(truth[rows]), len(truth[rows]))
    (counts,) = read_counts(board)
    np.testing.assert_array_equal(
        counts.confusion, confusion_matrix(truth, probabilities.argmax(1).numpy())
    )
    (curve,) = counts.curves()
    assert curve.name == "tumour"
    # The metric counts in bins of the logit, so close scores are ties.
    assert curve.average == pytest.approx(average_precision_score(truth == 0, share), abs=2e-3)
    assert curve.recall[-1] == 1
    board.collect()
    assert read_counts(board) == [], "counts that were reset are not shown"


def test_every_label_of_a_multilabel_task_has_a_curve_and_no_confusion() -> None:
    spec, board = board_of(Task("t", TaskKind.MULTILABEL, ("a", "b", "never")))
    truth = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])
    board.update(spec, 0.1 + 0.8 * truth, truth, 3)
    (counts,) = read_counts(board)
    assert counts.confusion is None
    assert [(curve.name, curve.average) for curve in counts.curves()] == [("a", 1.0), ("b", 1.0)]


def test_each_of_several_classes_has_a_curve_against_all_others() -> None:
    spec, board = board_of(Task("t", TaskKind.CLASSIFICATION, ("a", "b", "c")))
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    probabilities = torch.tensor(np.eye(3)[truth] + rng.random((200, 3)), dtype=torch.float32)
    probabilities /= probabilities.sum(1, keepdim=True)
    board.update(spec, probabilities, torch.from_numpy(truth), 200)
    (counts,) = read_counts(board)
    for i, curve in enumerate(counts.curves()):
        expected = average_precision_score(truth == i, probabilities[:, i].numpy())
        assert curve.name == "abc"[i]
        assert curve.average == pytest.approx(expected, abs=2e-3)
    confusion, recall = count_drawings(counts, synthetic=True)
    assert (confusion.name, recall.name) == ("data-t-confusion", "data-t-precision_recall")
    assert "a: " in confusion.description
    assert recall.description.count(",") == 2


def test_tasks_without_classes_or_images_have_nothing_to_show() -> None:
    specs = [
        TaskSpec("a", Task("t", TaskKind.REGRESSION)),
        TaskSpec("b", Task("t", TaskKind.SEGMENTATION, ("background", "gland"))),
        TaskSpec("c", Task("t", TaskKind.CLASSIFICATION, ("x", "y"))),
    ]
    board = TaskMetrics(specs)
    board.update(specs[0], torch.rand(4), torch.rand(4), 4)
    mask = torch.zeros(1, 8, 8, dtype=torch.int64)
    board.update(specs[1], mask, mask, 1)
    assert read_counts(board) == []


def test_the_best_threshold_is_where_the_metric_finds_its_best_f1() -> None:
    task = Task("t", TaskKind.DETECTION, ("a", "b"), match_distance_um=7.5)
    spec, board = board_of(task)
    target = draw_boxes(20, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    shift = torch.randint(0, 40, (len(target.labels), 1), generator=rng)
    scores = (1 - shift[:, 0] / 60 + 0.2 * torch.rand(len(shift), generator=rng)).clamp(0.06, 1)
    found = Detections(target.boxes + shift, scores, target.labels, target.image)
    board.update(spec, found, target, 20)
    (counts,) = read_counts(board)
    thresholds = torch.tensor(counts.best_thresholds())
    keep = scores >= thresholds[target.labels]
    kept = Detections(*(t[keep] for t in (found.boxes, scores, found.labels, found.image)))
    hits = match_detections(kept, target, 15) >= 0
    f1 = []
    for label in (0, 1):
        hit = int(hits[kept.labels == label].sum())
        total = int((kept.labels == label).sum() + (target.labels == label).sum())
        f1.append(2 * hit / total)
    best, _ = board.collect()
    assert np.mean(f1) == pytest.approx(best["data/t/f1_best"])
    assert len(set(np.round(f1, 6))) == 2 and 0.3 < np.mean(f1) < 1, "neither trivial nor equal"


def test_predictions_are_matched_to_the_objects_that_they_hit() -> None:
    target = DetectionTarget(
        torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10]]),
        torch.tensor([0, 0, 0]),
        torch.tensor([0, 0, 1]),
    )
    found = Detections(
        torch.tensor([[21.0, 21, 31, 31], [1, 1, 11, 11], [0, 0, 10, 10], [40, 40, 50, 50]]),
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        torch.tensor([0, 0, 0, 0]),
        torch.tensor([0, 0, 0, 1]),
    )
    assert match_detections(found, target, 5).tolist() == [1, 0, -1, -1]


def test_figures_can_be_drawn_of_many_classes() -> None:
    names = tuple(f"class_{i}$" for i in range(14))
    spec, board = board_of(Task("t", TaskKind.CLASSIFICATION, names))
    board.update(spec, torch.eye(14), torch.arange(14), 14)
    (counts,) = read_counts(board)
    drawing = count_drawings(counts, synthetic=False)[0]
    drawing.figure.canvas.draw()
    written = [text.get_text() for text in drawing.figure.axes[0].texts]
    assert written == ["1"] * 14
    labels = Task("t", TaskKind.MULTILABEL, names)
    spec, board = board_of(labels)
    board.update(spec, 0.1 + 0.8 * torch.eye(14), torch.eye(14), 14)
    (counts,) = read_counts(board)
    (drawing,) = count_drawings(counts, synthetic=False)
    lines = drawing.figure.axes[0].lines
    assert len(lines) == 14
