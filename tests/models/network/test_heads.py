from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from datamodules.core.records import Task, TaskKind
from datamodules.stream.batch import DetectionTarget
from models.metrics.task_metrics import SUMMARY, make_metrics
from models.network.detection_grid import DetectionGrid
from models.network.heads import Features
from models.network.losses import reduce
from models.network.multitask_network import MultiTaskNetwork
from models.network.neck import Neck
from models.tasks import TaskSpec
from tests.support.synthetic_batches import SIZE, SPECS, draw, tiny_model

STRIDE, SIDE = 4.0, 8


def slow_assignment(target: DetectionTarget, images: int) -> dict[tuple[int, int, int], int]:
    """The definition as plain loops: the object assigned to (image, row, column)."""
    owner: dict[tuple[int, int, int], int] = {}
    boxes = [[float(v) for v in box] for box in target.boxes]
    by_area = sorted(range(len(boxes)), key=lambda i: (area(boxes[i]), i))
    homes = [home(box) for box in boxes]
    for i in by_area:  # an object's own centre cell first, the smallest object first
        owner.setdefault((int(target.image[i]), homes[i][1], homes[i][0]), i)
    for i in by_area:
        x1, y1, x2, y2 = boxes[i]
        for row in range(homes[i][1] - 1, homes[i][1] + 2):
            for column in range(homes[i][0] - 1, homes[i][0] + 2):
                x, y = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE
                inside = x1 <= x <= x2 and y1 <= y <= y2
                if inside and 0 <= row < SIDE and 0 <= column < SIDE:
                    owner.setdefault((int(target.image[i]), row, column), i)
    return owner


def area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def home(box: list[float]) -> tuple[int, int]:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return tuple(min(max(int(v // STRIDE), 0), SIDE - 1) for v in (x, y))


half_pixels = st.integers(0, 2 * int(STRIDE * SIDE)).map(lambda v: v / 2)
box = st.tuples(half_pixels, half_pixels, st.integers(0, 60), st.integers(0, 60))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), box), max_size=12))
def test_assignment_equals_the_slow_obvious_loop(drawn):
    drawn = sorted(drawn, key=lambda pair: pair[0])
    boxes = [[x, y, x + w / 4, y + h / 4] for _, (x, y, w, h) in drawn]
    image = torch.tensor([i for i, _ in drawn], dtype=torch.int64)
    target = DetectionTarget(
        torch.tensor(boxes).view(-1, 4), torch.zeros(len(drawn), dtype=torch.int64), image
    )
    cells, objects, assigned = DetectionGrid(STRIDE, 8.0).assign(target, 2, SIDE, SIDE)
    assert len(set(cells[assigned].tolist())) == assigned.sum()
    ours = {
        (c // (SIDE * SIDE), c // SIDE % SIDE, c % SIDE): b
        for c, b in zip(cells[assigned].tolist(), objects[assigned].tolist(), strict=True)
    }
    assert ours == slow_assignment(target, 2)


def test_every_object_with_a_centre_cell_of_its_own_is_assigned():
    points = torch.tensor([[6.0, 6, 6, 6], [14, 6, 14.5, 6.5], [0, 0, 32, 32]])
    target = DetectionTarget(points, torch.zeros(3).long(), torch.zeros(3).long())
    _, objects, assigned = DetectionGrid(STRIDE, 8.0).assign(target, 1, SIDE, SIDE)
    assert set(objects[assigned].tolist()) == {0, 1, 2}


def test_decoding_inverts_the_training_targets_of_a_cell():
    grid = DetectionGrid(STRIDE, 12.0)
    boxes = torch.tensor([[3.0, 5, 13, 25], [20, 20, 21, 21]])
    target = DetectionTarget(boxes, torch.tensor([0, 1]), torch.tensor([0, 1]))
    output = torch.full((2, 6, SIDE, SIDE), 0.0)
    output[:, :2] = -20
    for image, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        column, row = int((x1 + x2) / 2 // STRIDE), int((y1 + y2) / 2 // STRIDE)
        output[image, image, row, column] = 3.0
        output[image, 2, row, column] = (x1 + x2) / 2 / STRIDE - column - 0.5
        output[image, 3, row, column] = (y1 + y2) / 2 / STRIDE - row - 0.5
        output[image, 4, row, column] = torch.log(torch.tensor((x2 - x1) / 12))
        output[image, 5, row, column] = torch.log(torch.tensor((y2 - y1) / 12))
    detections = grid.decode(output, 2, 0.05, 0.5, 100)
    torch.testing.assert_close(detections.boxes, boxes, rtol=1e-4, atol=1e-3)
    assert torch.equal(detections.labels, target.labels)
    assert torch.equal(detections.image, target.image)


def test_decoding_drops_duplicates_and_keeps_the_best_of_each_image():
    grid = DetectionGrid(STRIDE, 16.0)
    output = torch.zeros(3, 5, SIDE, SIDE)
    output[:, :1] = -20
    output[0, 0, 2, 2:4] = torch.tensor([2.0, 3.0])  # neighbours: the same object twice
    output[2, 0, ::4, ::4] = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    detections = grid.decode(output, 1, 0.05, 0.5, 3)
    assert detections.image.tolist() == [0, 2, 2, 2]
    torch.testing.assert_close(detections.scores, torch.tensor([3.0, 4, 3, 2]).sigmoid())


def test_no_score_above_the_threshold_gives_no_object():
    detections = DetectionGrid(STRIDE, 12.0).decode(torch.full((2, 5, 4, 4), -9.0), 1, 0.05, 0.5, 3)
    assert detections.boxes.shape == (0, 4)


def test_an_object_spans_about_four_cells_on_its_pyramid_level():
    neck = Neck([8, 8, 8, 8], [4, 8, 16, 32], 8)
    assert [neck.level(px) for px in (3, 16, 32, 70, 500)] == [0, 0, 1, 2, 3]


def test_the_network_can_overfit_a_small_batch_of_each_kind_of_task():
    torch.manual_seed(0)
    model = MultiTaskNetwork(SPECS, tiny_model(), SIZE)
    batch = draw(images=2)
    images = (batch.images.permute(0, 3, 1, 2).float() / 255 - 0.5) * 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    for step in range(80):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 10, (80 - step) / 40)
        optimizer.zero_grad()
        outputs, total = model(images, batch.parts)
        loss = {}
        for part, spec, head in model.tasks_in(batch.parts):
            terms = head.loss(outputs[spec.key], part.targets[spec.task.name])
            loss[spec.key] = reduce(terms, torch.stack([t.count for t in terms]))
        (total + sum(loss.values())).backward()
        optimizer.step()
    assert {k: round(v.item(), 3) for k, v in loss.items() if v > 0.1} == {}
    model.eval()
    with torch.no_grad():
        outputs, _ = model(images, batch.parts)
    for part, spec, head in model.tasks_in(batch.parts):
        prediction = head.predict(outputs[spec.key])
        scores = {}
        for metric in make_metrics(spec.task, spec.mpp):
            metric.update(prediction, part.targets[spec.task.name])
            scores |= metric.compute()
        assert scores[SUMMARY[spec.task.kind]] > 0.95, spec.key


def test_a_head_is_one_layer():
    model = MultiTaskNetwork(SPECS, tiny_model(), SIZE)
    for head in model.heads.values():
        layers = [m for m in head.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        assert len(layers) == 1


def test_predictions_are_probabilities_or_lie_within_the_bounds():
    specs = [
        TaskSpec("a", Task("c", TaskKind.CLASSIFICATION, ("x", "y", "z"))),
        TaskSpec("b", Task("r", TaskKind.REGRESSION, low=-3.0, high=5.0)),
    ]
    model = MultiTaskNetwork(specs, tiny_model(), SIZE)
    wide = Features(1e3 * torch.randn(6, model.encoder.embedding_dim))
    first, second = (model.head(spec) for spec in specs)
    torch.testing.assert_close(first.predict(first(wide)).sum(1), torch.ones(6))
    values = second.predict(second(wide))
    assert values.min() >= -3 and values.max() <= 5
