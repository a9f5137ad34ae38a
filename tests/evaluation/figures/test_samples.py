"""Panels show what is right and wrong, on the same validation images every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.records import Task, TaskKind
from datamodules.prepare import prepare
from datamodules.registry import build
from datamodules.stream.batch import DetectionTarget
from datamodules.synthetic.forge import forge
from evaluation.figure_files import save_photograph
from evaluation.figures.samples import (
    FALSE,
    HIT,
    MISSED,
    Panel,
    above,
    objects_of,
    panel_drawing,
    verdicts,
)
from lightning_app.callbacks.sample_predictions import predict, sample_batch
from lightning_app.loggers.wandb_media import panel_images
from models.config import OptimConfig
from models.module import MultiTaskModule
from models.network.detection_grid import Detections
from models.tasks import TaskSpec
from tests.support.synthetic_batches import SIZE, SPECS, draw, draw_boxes, tiny_model

CELL = Task("cell", TaskKind.DETECTION, ("cell",), match_distance_um=5)


def panel(task: Task, target: object, prediction: object, images: int = 2) -> Panel:
    pixels = np.full((images, SIZE, SIZE, 3), (200, 120, 170), np.uint8)
    return Panel(TaskSpec("data", task, 0.5), pixels, target, prediction, (0.5,))


def detections(boxes: torch.Tensor, image: torch.Tensor) -> Detections:
    number = len(boxes)
    return Detections(
        boxes, torch.linspace(0.9, 0.6, number), torch.zeros(number, dtype=torch.int64), image
    )


def shown_colours(drawn: Panel, folder: Path) -> dict[str, int]:
    """Pixels of the colour of each fate in the column of predictions, without the legend."""
    with Image.open(save_photograph(panel_drawing(drawn), folder)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    pixels = pixels[60:-60, 2 * pixels.shape[1] // 3 :]
    counts = {}
    for name, (colour, _) in (("hit", HIT), ("missed", MISSED), ("false", FALSE)):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        counts[name] = int((np.abs(pixels - wanted).max(-1) < 40).sum())
    return counts


def test_hits_misses_and_false_alarms_are_counted_and_drawn_apart(tmp_path: Path) -> None:
    target = draw_boxes(2, torch.Generator().manual_seed(0), classes=1)
    perfect = panel(CELL, target, detections(target.boxes, target.image))
    assert [v.predicted for v in verdicts(perfect)] == ["2 of 2 found, 0 false alarms"] * 2
    colours = shown_colours(perfect, tmp_path)
    assert colours["hit"] > 200
    assert colours["missed"] == 0

    blind = panel(CELL, target, detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))
    assert [v.predicted for v in verdicts(blind)] == ["0 of 2 found, 0 false alarms"] * 2
    colours = shown_colours(blind, tmp_path)
    assert colours["hit"] == 0
    assert colours["missed"] > 100

    astray = panel(CELL, target, detections(target.boxes[:1] + 15, target.image[:1]))
    assert verdicts(astray)[0].predicted == "0 of 2 found, 1 false alarm"
    ((truth, predicted), _) = objects_of(astray)
    assert (truth.matched.tolist(), predicted.matched.tolist()) == ([False, False], [False])
    assert shown_colours(astray, tmp_path)["false"] > colours["false"]


def test_an_image_without_objects_has_a_verdict_of_its_own() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    target = DetectionTarget(torch.zeros(0, 4), nothing, nothing)
    empty = panel(CELL, target, detections(torch.zeros(0, 4), nothing))
    assert verdicts(empty)[0].predicted == "no object, 0 false alarms"


def test_detections_below_the_threshold_of_their_class_are_removed() -> None:
    boxes = torch.zeros(4, 4)
    found = Detections(
        boxes,
        torch.tensor([0.9, 0.5, 0.4, 0.3]),
        torch.tensor([0, 1, 0, 1]),
        torch.tensor([0, 0, 0, 0]),
    )
    assert above(found, (0.5, 0.3)).scores.tolist() == pytest.approx([0.9, 0.5, 0.3])


def test_classes_labels_and_values_are_described_in_words() -> None:
    task = Task("t", TaskKind.CLASSIFICATION, ("benign", "tumour"))
    words = verdicts(panel(task, torch.tensor([1, 0]), torch.tensor([[0.07, 0.93], [0.4, 0.6]])))
    assert [(v.truth, v.predicted, v.right) for v in words] == [
        ("tumour", "tumour 93 %", True),
        ("benign", "tumour 60 %", False),
    ]
    task = Task("t", TaskKind.MULTILABEL, ("fat", "mucin"))
    words = verdicts(
        panel(task, torch.tensor([[1.0, 1], [0, 0]]), torch.tensor([[0.9, 0.7], [0.8, 0.2]]))
    )
    assert [(v.truth, v.predicted, v.right) for v in words] == [
        ("fat + mucin", "fat 90 % + mucin 70 %", True),
        ("none", "fat 80 %", False),
    ]
    task = Task("t", TaskKind.REGRESSION, low=0, high=1)
    words = verdicts(panel(task, torch.tensor([0.25, 1.0]), torch.tensor([0.75, 1.0])))
    assert [v.predicted for v in words] == ["0.75 (off by 0.50)", "1.00 (off by 0.00)"]
    assert words[0].right is None


def test_the_dice_of_an_image_leaves_out_pixels_without_a_label() -> None:
    task = Task("t", TaskKind.SEGMENTATION, ("background", "gland"))
    truth = torch.zeros(2, SIZE, SIZE, dtype=torch.int64)
    truth[0, :32], truth[0, 40:], truth[1] = 1, 255, 255
    predicted = truth.clone()
    predicted[0, 40:], predicted[1] = 1, 0
    words = [v.predicted for v in verdicts(panel(task, truth, predicted))]
    assert words == ["Dice 1.00", "Dice undefined: no pixel is labelled"]


@pytest.fixture(scope="module")
def module() -> MultiTaskModule:
    torch.manual_seed(0)
    return MultiTaskModule(SPECS, tiny_model(), OptimConfig(), image_size=SIZE)


def test_every_kind_of_task_becomes_a_picture_and_wandb_images(
    module: MultiTaskModule, tmp_path: Path
) -> None:
    batch = draw(images=3)
    predictions = predict(module, batch)
    for part in batch.parts:
        pixels = batch.images[part.start : part.stop].numpy()
        for spec in module.model.tasks_of(part):
            target = part.targets[spec.task.name]
            one = Panel(spec, pixels, target, predictions[spec.key], (0.5, 0.5), synthetic=True)
            path = save_photograph(panel_drawing(one), tmp_path)
            assert path.name == f"{spec.dataset}-{spec.task.name}.png"
            with Image.open(path) as picture:
                assert picture.width > 400
            assert len(panel_images(one)) == 3
    assert len(list(tmp_path.glob("*"))) == len(SPECS)


def test_predicting_for_a_panel_does_not_change_the_training_state(module: MultiTaskModule) -> None:
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    predict(module, draw())
    assert module.training and all(m.training for m in module.model.heads.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[k]) for k, value in module.state_dict().items())


def test_the_sampled_images_are_validation_images_and_always_the_same(tmp_path: Path) -> None:
    data = DataConfig(root=str(tmp_path / "data"), stores=str(tmp_path / "st"), image_size=64)
    dataset = build("midogpp", DatasetConfig(), data)
    forge(dataset, 0, 24)
    prepare(dataset, workers=1)
    batch = sample_batch(dataset, "midogpp", seed=3)
    (part,) = batch.parts
    assert 0 < len(part) <= 4
    assert set(part.index.tolist()) <= set(dataset.rows("val").tolist())
    assert part.targets["mitosis"].image.unique().tolist() == list(range(len(part)))
    again = sample_batch(dataset, "midogpp", seed=3)
    assert torch.equal(again.parts[0].index, part.index)
    assert torch.equal(again.images, batch.images)
