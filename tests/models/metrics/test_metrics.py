from __future__ import annotations

import socket
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torchmetrics.detection import MeanAveragePrecision

from datamodules.core.records import Task, TaskKind
from datamodules.stream.batch import DetectionTarget
from models.metrics.classification import Auroc, ClassScores, LabelScores, PixelScores
from models.metrics.detection import BoxAveragePrecision, CentreDistanceF1
from models.metrics.task_metrics import SUMMARY, RegressionScores, TaskMetrics, make_metrics
from models.network.detection_grid import Detections
from models.tasks import TaskSpec
from tests.support.synthetic_batches import SPECS


def classes(n: int = 200, c: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    target = torch.randint(0, c, (n,), generator=g)
    logits = torch.randn(n, c, generator=g)
    logits[torch.arange(n), target] += 1.0
    return logits.softmax(1), target


def test_class_scores_are_those_of_scikit_learn():
    p, y = classes()
    metric, curve = ClassScores(4), Auroc(4)
    for i in range(0, 200, 30):
        metric.update(p[i : i + 30], y[i : i + 30])
        curve.update(p[i : i + 30], y[i : i + 30])
    ours, predicted = metric.compute(), p.argmax(1)
    assert ours["f1_macro"] == pytest.approx(sk.f1_score(y, predicted, average="macro"))
    assert ours["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, predicted))
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted))
    exact = sk.roc_auc_score(y, p, multi_class="ovr", average="macro")
    assert curve.compute()["auroc"] == pytest.approx(exact, abs=2e-4)


def test_the_positive_class_has_its_own_f1():
    p, y = classes(c=2)
    task = Task("t", TaskKind.CLASSIFICATION, ("a", "b"), positive="a")
    metric = make_metrics(task, 0.0)[0]
    metric.update(p, y)
    exact = sk.f1_score(y, p.argmax(1), pos_label=0)
    assert metric.compute()["f1_positive"] == pytest.approx(exact)


def test_label_scores_are_those_of_scikit_learn():
    g = torch.Generator().manual_seed(1)
    y = torch.randint(0, 2, (100, 3), generator=g)
    p = torch.rand(100, 3, generator=g) * 0.7 + 0.3 * y
    metric, curve = LabelScores(3), Auroc(3, multilabel=True)
    metric.update(p, y.float())
    curve.update(p, y.float())
    exact = sk.f1_score(y, p >= 0.5, average="macro")
    assert metric.compute()["f1_macro"] == pytest.approx(exact)
    assert curve.compute()["auroc"] == pytest.approx(sk.roc_auc_score(y, p), abs=1e-3)


def test_auroc_resolves_scores_near_zero():
    p = torch.tensor([1e-5, 2e-5, 4e-5, 8e-5])
    metric = Auroc(2)
    metric.update(torch.stack([1 - p, p], 1), torch.tensor([0, 0, 1, 1]))
    assert metric.compute()["auroc"] == 1.0


def test_pixel_scores_are_those_of_scikit_learn_without_ignored_pixels():
    g = torch.Generator().manual_seed(2)
    y, predicted = torch.randint(0, 3, (2, 4, 8, 8), generator=g)
    y[:, :2] = 255
    metric = PixelScores(4, 255)  # the fourth class does not occur
    metric.update(predicted, y)
    keep = y != 255
    scores = metric.compute()
    assert scores["dice"] == pytest.approx(sk.f1_score(y[keep], predicted[keep], average="macro"))
    assert scores["miou"] == pytest.approx(
        sk.jaccard_score(y[keep], predicted[keep], average="macro")
    )


def test_regression_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    y = torch.tensor(rng.normal(500, 10, 300))
    p = y + torch.tensor(rng.normal(0, 4, 300))
    metric = RegressionScores(480.0)
    for i in range(0, 300, 100):
        metric.update(p[i : i + 100], y[i : i + 100])
    scores = metric.compute()
    assert scores["mae"] == pytest.approx(sk.mean_absolute_error(y, p), rel=1e-4)
    assert scores["mse"] == pytest.approx(sk.mean_squared_error(y, p), rel=1e-4)
    assert scores["r2"] == pytest.approx(sk.r2_score(y, p), rel=1e-3)


@pytest.mark.parametrize(
    ("metric", "prediction", "target"),
    [
        (ClassScores(3), torch.eye(3)[:1], torch.tensor([0])),
        (Auroc(3), torch.eye(3)[:1], torch.tensor([0])),
        (Auroc(2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)),
        (ClassScores(3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
        (LabelScores(2), torch.zeros(1, 2), torch.zeros(1, 2)),
        (PixelScores(2, 255), torch.zeros(1, 4, 4).long(), torch.full((1, 4, 4), 255)),
        (RegressionScores(), torch.ones(1), torch.ones(1)),
        (RegressionScores(), torch.zeros(0), torch.zeros(0)),
    ],
)
def test_scores_of_one_class_one_sample_or_none_are_numbers_or_nan(metric, prediction, target):
    metric.update(prediction, target)
    scores = metric.compute()
    assert all(v.isnan() or v.isfinite() for v in scores.values())
    assert len(target) or all(v.isnan() for v in scores.values())


def detections(rows: list[tuple[int, int, float, float, float]]) -> Detections:
    """Rows of image, label, score, centre x, centre y; any order."""
    rows = sorted(rows, key=lambda r: (r[0], -r[2]))
    t = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    boxes = torch.cat([t[:, 3:] - 2, t[:, 3:] + 2], 1)
    return Detections(boxes, t[:, 2], t[:, 1].long(), t[:, 0].long())


def objects(rows: list[tuple[int, int, float, float]]) -> DetectionTarget:
    t = torch.tensor(sorted(rows, key=lambda r: r[0]), dtype=torch.float32).view(-1, 4)
    return DetectionTarget(
        torch.cat([t[:, 2:] - 3, t[:, 2:] + 3], 1), t[:, 1].long(), t[:, 0].long()
    )


def brute_force_f1(predicted: Detections, truth: DetectionTarget, label: int, distance, threshold):
    hits = predictions = 0
    for image in range(3):
        free = [
            (box[:2] + box[2:]) / 2
            for box, i, c in zip(truth.boxes, truth.image, truth.labels, strict=True)
            if i == image and c == label
        ]
        ranked = sorted(
            (
                (-float(s), n)
                for n, (s, i, c) in enumerate(
                    zip(predicted.scores, predicted.image, predicted.labels, strict=True)
                )
                if i == image and c == label and s >= threshold
            ),
        )
        predictions += len(ranked)
        for _, n in ranked:
            centre = (predicted.boxes[n, :2] + predicted.boxes[n, 2:]) / 2
            apart = [float((centre - f).norm()) for f in free]
            if apart and min(apart) <= distance:
                free.pop(apart.index(min(apart)))
                hits += 1
    total = predictions + int((truth.labels == label).sum())
    return 2 * hits / total if total else float("nan")


spot = st.integers(0, 40)
scored = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(1, 20), spot, spot)
placed = st.tuples(st.integers(0, 2), st.integers(0, 1), spot, spot)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(scored, max_size=15, unique_by=lambda r: (r[0], r[1], r[2])),
    st.lists(placed, max_size=8),
)
def test_f1_at_a_centre_distance_equals_brute_force_at_every_threshold(rows, truth_rows):
    predicted = detections([(i, c, s / 20, x, y) for i, c, s, x, y in rows])
    truth = objects(truth_rows)
    metric = CentreDistanceF1(2, 6.5)
    metric.update(predicted, truth)
    scores = metric.compute()
    best, half = [], []
    for label in (0, 1):
        every = [brute_force_f1(predicted, truth, label, 6.5, s / 20 - 1e-4) for s in range(1, 21)]
        best.append(np.nanmax(every) if not np.isnan(every).all() else np.nan)
        half.append(brute_force_f1(predicted, truth, label, 6.5, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean of nothing is NaN, as it should be
        assert float(scores["f1_best"]) == pytest.approx(np.nanmean(best), nan_ok=True)
        assert float(scores["f1_at_half"]) == pytest.approx(np.nanmean(half), nan_ok=True)


def test_f1_does_not_depend_on_how_images_are_split_into_updates():
    rows = [(0, 0, 0.9, 5.0, 5.0), (1, 0, 0.6, 20.0, 20.0), (2, 1, 0.7, 30.0, 9.0)]
    truth = [(0, 0, 6.0, 5.0), (1, 0, 35.0, 35.0), (2, 1, 30.0, 10.0)]
    whole, split = CentreDistanceF1(2, 3.0), CentreDistanceF1(2, 3.0)
    whole.update(detections(rows), objects(truth))
    for row, target in zip(rows, truth, strict=True):
        split.update(detections([(0, *row[1:])]), objects([(0, *target[1:])]))
    assert whole.compute() == split.compute()


def test_the_match_distance_is_in_micrometres():
    task = Task("t", TaskKind.DETECTION, ("mitosis",), match_distance_um=7.5)
    for mpp, expected in ((0.25, 1.0), (0.5, 0.0)):  # 20 px are 5 um or 10 um
        metric = make_metrics(task, mpp)[0]
        metric.update(detections([(0, 0, 0.9, 30, 10)]), objects([(0, 0, 10, 10)]))
        assert metric.compute()["f1_best"] == expected


@pytest.mark.parametrize("further", [(), ("debris",)])
def test_the_positive_class_of_a_detection_task_alone_counts(further):
    classes = ("mitosis", "look-alike", *further)
    task = Task("t", TaskKind.DETECTION, classes, positive="mitosis")
    seen = detections([(0, 0, 0.9, 10, 10), (0, 1, 0.9, 30, 30)])
    truth = objects([(0, 0, 10, 10), (0, 1, 5, 35)])  # the look-alike is missed
    for positive, expected in (("mitosis", 1.0), ("look-alike", 0.0), (None, 0.5)):
        metric = make_metrics(replace(task, positive=positive), 1.0)[0]
        metric.update(seen, truth)
        assert {name: float(v) for name, v in metric.compute().items()} == {
            "f1_best": expected,
            "f1_at_half": expected,
        }


def test_a_threshold_of_validation_images_is_not_chosen_anew_on_test_images():
    specs = [TaskSpec(name, Task("d", TaskKind.DETECTION, ("x",)), 1.0) for name in ("a", "b")]
    test, validation = TaskMetrics(specs), TaskMetrics(specs)
    for spec in specs:  # validation is best at 0.8, the test images would be at 0.3
        hit, miss = (0, 0, 0.8, 10, 10), (0, 0, 0.7, 60, 60)
        validation.update(spec, detections([hit, miss]), objects([(0, 0, 10, 10)]), 1)
    test.take_thresholds(validation, {"a"})
    for spec in specs:
        test.update(spec, detections([(0, 0, 0.3, 10, 10)]), objects([(0, 0, 10, 10)]), 1)
    scores, _ = test.collect()
    assert (scores["a/d/f1_best"], scores["b/d/f1_best"]) == (0.0, 1.0)
    assert validation.collect() == ({}, None)


def test_without_validation_images_the_threshold_is_one_half():
    spec = TaskSpec("a", Task("d", TaskKind.DETECTION, ("x",)), 1.0)
    test = TaskMetrics([spec])
    test.take_thresholds(TaskMetrics([spec]), {"a"})
    test.update(spec, detections([(0, 0, 0.4, 10, 10)]), objects([(0, 0, 10, 10)]), 1)
    assert test.collect()[0]["a/d/f1_best"] == 0.0


def test_average_precision_is_one_for_perfect_boxes_and_nan_without_objects():
    truth = objects([(0, 0, 10, 10), (2, 1, 20, 20)])
    metric = BoxAveragePrecision()
    metric.update(Detections(truth.boxes, torch.ones(2), truth.labels, truth.image), truth)
    assert metric.compute()["map"] == pytest.approx(1.0)
    empty = BoxAveragePrecision()
    empty.update(detections([]), objects([]))
    assert empty.compute()["map"].isnan()


def many_boxes(seed: int, images: int) -> tuple[Detections, DetectionTarget]:
    """Two objects an image; some are missed, and some are seen where another image has one."""
    g = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 3, (2 * images, 2), generator=g) * 20.0
    boxes = torch.cat([corner, corner + 12], 1)
    image = torch.arange(images).repeat_interleave(2)
    labels = torch.randint(0, 2, (2 * images,), generator=g)
    seen = torch.arange(2 * images) % 3 > 0
    noisy = boxes[seen] + torch.randn(int(seen.sum()), 4, generator=g)
    other = torch.cat([(corner[~seen] + 20) % 60, (corner[~seen] + 20) % 60 + 12], 1)
    predicted = torch.cat([noisy, other])
    where, named = (torch.cat([v[seen], v[~seen]]) for v in (image, labels))
    scores = torch.rand(len(predicted), generator=g)
    order = torch.argsort(where, stable=True)
    truth = DetectionTarget(boxes, labels, image)
    return Detections(predicted[order], scores[order], named[order], where[order]), truth


def test_average_precision_equals_torchmetrics_for_any_split_into_batches():
    metric = BoxAveragePrecision()
    theirs = MeanAveragePrecision(
        max_detection_thresholds=[1, 100, 500], backend="faster_coco_eval"
    )
    for seed, images in enumerate((12, 1, 15)):
        predicted, truth = many_boxes(seed, images)
        metric.update(predicted, truth)
        metric.update(detections([]), objects([]))
        for i in range(images):
            seen, real = predicted.image == i, truth.image == i
            theirs.update(
                [{n: getattr(predicted, n)[seen] for n in ("boxes", "scores", "labels")}],
                [{"boxes": truth.boxes[real], "labels": truth.labels[real]}],
            )
    expected = theirs.compute()
    assert 0.1 < expected["map"] < 0.9
    assert metric.compute() == {name: expected[name] for name in ("map", "map_50")}


def score_on_rank(rank: int, port: int, out: str) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    metric = BoxAveragePrecision()
    for seed in (0, 1) if rank == 0 else (2,):  # ranks with different numbers of images
        metric.update(*many_boxes(seed, 10 + seed))
    torch.save(metric.compute(), f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_average_precision_covers_the_images_of_all_ranks(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(score_on_rank, (port, str(tmp_path)), nprocs=2, start_method="fork")
    metric = BoxAveragePrecision()
    for seed in range(3):
        metric.update(*many_boxes(seed, 10 + seed))
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == metric.compute()


def test_the_summary_averages_defined_scores_and_clips_r2_at_zero():
    specs = [
        TaskSpec("a", Task("c", TaskKind.CLASSIFICATION, ("x", "y"))),
        TaskSpec("b", Task("r", TaskKind.REGRESSION, low=0.0, high=1.0)),
        TaskSpec("c", Task("d", TaskKind.DETECTION, ("x",)), 0.5),
    ]
    metrics = TaskMetrics(specs)
    metrics.update(specs[0], torch.eye(2), torch.tensor([0, 1]), 2)
    metrics.update(specs[1], torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 2)
    scores, summary = metrics.collect()  # the third task saw no image
    assert scores["b/r/r2"] == pytest.approx(-3.0)
    assert "c/d/f1_best" not in scores
    assert summary == 0.5
    assert metrics.collect() == ({}, None)


def test_padding_images_do_not_count():
    spec = SPECS[0]
    metrics = TaskMetrics([spec])
    metrics.update(spec, torch.eye(2), torch.tensor([0, 1, 0, 0]), 2)
    assert metrics.collect()[0]["organ/class/accuracy"] == 1.0


@pytest.mark.parametrize("kind", list(TaskKind))
def test_the_representative_metric_of_every_kind_of_task_is_computed(kind):
    task = Task("t", kind, ("a", "b"))
    names = {name for m in make_metrics(task, 0.5) for name in _names(m)}
    assert SUMMARY[kind] in names


def _names(metric) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return set(metric.compute())
