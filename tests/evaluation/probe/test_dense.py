"""Dense probes: cells get the right class, scores are those of pixels and of objects."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from datamodules.base import PathologyDataModule
from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from datamodules.formats.images import write_image
from datamodules.own_data.coco_boxes import CocoBoxes
from datamodules.own_data.image_masks import ImageMasks
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from evaluation.config import ProbeConfig
from evaluation.probe.dense import SAMPLE, dense_truth
from evaluation.probe.dense_jobs import run_dense_job
from evaluation.probe.features import extract
from evaluation.probe.jobs import Job
from evaluation.report.report import write_report
from evaluation.statistics.metrics import score
from evaluation.statistics.predictions import read_predictions
from evaluation.statistics.summary import summarise
from evaluation.study import run_study
from models.inference.loading import load_encoder

SIDE, PATIENTS = 128, 6  # a grid of 8 x 8 cells
SETTINGS = ProbeConfig(
    sizes=[2, 4, 0], repeats=2, trees=20, jobs=1, backend="threading", bootstrap=50,
    predictors=["forest", "linear"],
)  # fmt: skip


class Colour:
    """An encoder whose dense features are the mean colours of cells of 8 pixels."""

    def __init__(self, name: str, blind: bool = False) -> None:
        self.name, self.identity, self.blind = name, name, blind

    def embed_dense(self, images: Tensor, precision: str = "fp32") -> Tensor:
        maps = avg_pool2d(images.permute(0, 3, 1, 2).float(), 8)
        return torch.zeros_like(maps) if self.blind else maps


def prepared(reader_class: type[DatasetReader], folder: Path, config: DatasetConfig):
    reader = reader_class(DataConfig(str(folder), str(folder / "stores"), image_size=SIDE), config)
    prepare(reader)
    config.dense = reader.store.tasks[0].name
    return PathologyDataModule(reader=reader)


def write_masks(folder: Path, block: int, classes: int = 2) -> DatasetConfig:
    """Two images of each patient in blocks of one class; tumour is red, a corner not labelled."""
    rng = np.random.default_rng(0)
    colours = np.array([(60, 60, 200), (200, 30, 30), (30, 200, 30)])
    for number in range(2 * PATIENTS):
        blocks = rng.random((SIDE // block,) * 2)
        chosen = np.digitize(blocks, (1 - (number + 2) / 20, 1.1) if classes == 2 else (0.5, 0.8))
        mask = np.kron(chosen, np.ones((block, block))).astype(np.uint8)
        image = colours[mask].astype(np.uint8) + rng.integers(0, 20, (SIDE, SIDE, 3), np.uint8)
        mask[:32, :32] = 255
        name = f"p{number // 2}_{number}.png"
        write_image(folder / "image_masks/images" / name, image)
        write_image(folder / "image_masks/masks" / name, mask)
    options = {"classes": ["background", "tumour", "stroma"][:classes], "group": "^(p.)_"}
    return DatasetConfig(patch_size=SIDE, options=options, dense="mask", folds=3)


@pytest.fixture
def masks(tmp_path: Path) -> PathologyDataModule:
    return prepared(ImageMasks, tmp_path, write_masks(tmp_path, 32))


def test_a_study_of_pixels_is_nested_over_images_and_scores_dice(masks, tmp_path):
    encoders = [Colour("ours"), Colour("imagenet:blind", blind=True)]
    folder = tmp_path / "run"
    results = run_study(encoders, [masks], SETTINGS, folder)
    assert [result.predictor for result in results] == ["forest", "linear"]
    for result in results:
        assert result.metric.name == "dice" and result.positive == 1
        assert result.n_train[:2].tolist() == [[2] * 3, [4] * 3] and result.n_train[2].sum() == 24
        statistics = summarise(result, 50)
        assert statistics.images == 12 and statistics.groups == PATIENTS
        assert statistics.curves[0].scores[-1].value > 0.85  # edges between cells are soft
        assert statistics.curves[1].scores[-1].value < statistics.curves[0].scores[-1].value - 0.3
        assert statistics.comparisons[0].verdict == 1
        # everything positive: 2 p / (1 + p), of the labelled pixels of all test images
        every = masks.store.masks("mask", range(12))
        share = (every == 1).sum() / (every != 255).sum()
        assert statistics.constant == pytest.approx(2 * share / (1 + share))
    write_report(folder)
    assert "Dice" in (folder / "report.html").read_text()
    (again, _) = read_predictions(folder / "probe_predictions.h5")
    assert again.metric.name == "dice" and np.array_equal(again.predicted, results[0].predicted)
    calm = run_study(encoders, [masks], SETTINGS, folder)  # all of it from the journal
    assert np.array_equal(calm[1].predicted, results[1].predicted)


@pytest.mark.parametrize("classes", [2, 3])
def test_dice_is_that_of_the_interpolated_probabilities_at_every_pixel(tmp_path, classes):
    data = prepared(ImageMasks, tmp_path, write_masks(tmp_path, 16, classes))
    truth = dense_truth(data, SIDE)
    rng = np.random.default_rng(1)
    chances = rng.dirichlet(np.ones(classes), 64).astype(np.float32)
    image = torch.from_numpy(chances.T.reshape(1, classes, 8, 8))
    found = interpolate(image, [SIDE] * 2, mode="bilinear", align_corners=False)[0].argmax(0)
    mask = data.store.masks("mask", [3])[0]
    found, mask = found.numpy()[mask != 255], mask[mask != 255]
    kept = [1] if classes == 2 else [0, 1, 2]
    hits = [((found == c) & (mask == c)).sum() for c in kept]
    expected = [*hits, *((found == c).sum() for c in kept)]
    assert np.abs(truth.counts(3, chances) - expected).max() <= 2, "rounding at ties"
    assert truth.counted[3].tolist() == [(mask == c).sum() for c in kept]
    metric = {2: "dice", 3: "mean_dice"}[classes]
    (result, _) = run_study([Colour("ours")], [data], SETTINGS, tmp_path / "run")
    assert result.metric.name == metric and result.predicted.shape[-1] == 2 * len(kept)
    perfect = np.concatenate([result.truth, result.truth], axis=1)
    assert score(result.metric, result.truth, perfect, result.positive) == 1.0


def test_cells_have_the_most_frequent_class_and_unlabelled_ones_do_not_count(masks, tmp_path):
    truth = dense_truth(masks, SIDE)
    assert truth.side == 8 and (truth.cells >= 0).sum(1).tolist() == [SAMPLE] * 12
    table = extract(Colour("ours"), masks, tmp_path / "cache")
    assert table.dense is not None and table.classes == ("background", "tumour")
    assert table.features.shape == (12, 64, 3) and table.kind is TaskKind.REGRESSION
    assert (truth.cells[:, [0, 1, 8, 9]] == -1).all(), "the corner"
    for row in range(12):
        mask = masks.store.masks("mask", [row])[0]
        kept = truth.cells[row] >= 0
        assert (mask[8::16, 8::16].ravel() == truth.cells[row])[kept].all()
        assert table.targets[row] == pytest.approx(mask[mask != 255].mean())
    red = table.features[truth.cells == 1][:, 0]
    assert red.min() >= 200 > 80 >= table.features[truth.cells == 0][:, 0].max()


def test_every_encoder_predicts_the_same_cells(masks, tmp_path):
    tables = [
        extract(load_encoder(spec, SIDE), masks, tmp_path / "cache")
        for spec in ("random:resnet18", "random:vit_tiny_patch16_224")
    ]
    assert [table.features.shape for table in tables] == [(12, 64, 256), (12, 64, 192)]
    np.testing.assert_array_equal(tables[0].dense.cells, tables[1].dense.cells)
    half = extract(load_encoder("random:resnet18", SIDE), masks, tmp_path / "cache", role="report")
    assert 0 < len(half.rows) < 12
    np.testing.assert_array_equal(half.dense.cells, tables[0].dense.cells[half.rows])
    # Half of the images give what all give: features are looked up by the store's rows.
    train, test = np.array([0, 1]), np.array([2])
    job = Job("d", "e", "linear", 1, 2, 0, train, test, 0)
    whole = replace(job, train=half.rows[train], test=half.rows[test])
    counts = run_dense_job(job, half.dense, half.features, 5)[1]
    assert (counts == run_dense_job(whole, tables[0].dense, tables[0].features, 5)[1]).all()


@pytest.fixture
def boxes(tmp_path: Path) -> PathologyDataModule:
    """Red objects of 16 pixels, each in one cell, at 0.5 µm/px; three in each image but one."""
    rng = np.random.default_rng(0)
    found = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "mitosis"}]}
    for number in range(8):
        name = f"p{number}.png"
        image = rng.integers(60, 90, (SIDE, SIDE, 3), np.uint8)
        found["images"].append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        for place in rng.permutation(16)[: 0 if number == 5 else 3]:  # never in two cells in a row
            x, y = (32 * place % 128, 32 * (place // 4))
            image[y : y + 16, x : x + 16] = (220, 20, 20)
            annotation = {"id": len(found["annotations"]), "image_id": number, "category_id": 1}
            found["annotations"].append({**annotation, "bbox": [int(x), int(y), 16, 16]})
        write_image(tmp_path / "coco_boxes/images" / name, image)
    (tmp_path / "coco_boxes/annotations.json").write_text(json.dumps(found))
    options = {"group": "^(p.)", "mpp": 0.5}
    config = DatasetConfig(patch_size=SIDE, mpp=0.5, options=options, folds=2)
    return prepared(CocoBoxes, tmp_path, config)


def test_detections_are_peaks_within_the_distance_of_an_object(boxes, tmp_path):
    truth = dense_truth(boxes, SIDE)
    assert truth.distance == 15 and truth.counted[:, 0].sum() == 21
    row = int(np.flatnonzero(truth.counted[:, 0])[0])
    x, y = truth.centres(row)[0]
    cell = int(y // 16 * 8 + x // 16)
    chances = np.zeros((64, 2), np.float32)
    chances[cell, 1], chances[cell - 8 if y > 16 else cell + 8, 1] = 0.8, 0.7  # one, not two
    scores, hit = truth.peaks(row, chances)
    assert scores.tolist() == pytest.approx([0.8]) and hit.tolist() == [True]
    assert len(truth.peaks(row, np.zeros((64, 2), np.float32))[0]) == 0
    everywhere = truth.peaks(row, np.ones((64, 2), np.float32))
    assert len(everywhere[0]) == 1, "a plateau is one detection"
    # 0.5 µm/px and 7.5 µm: a square grid of 30 px, 4 x 4 of them, and each finds an object or not
    constant = truth.constant(np.arange(8), np.arange(8))
    assert (constant[:, 1] == 16).all() and (constant[:, 0] <= truth.counted[:, 0]).all()


def test_a_study_of_objects_scores_f1_and_chooses_its_threshold_on_labelled_images(boxes, tmp_path):
    encoders = [Colour("ours"), Colour("imagenet:blind", blind=True)]
    settings = replace(SETTINGS, sizes=[0])
    for result in run_study(encoders, [boxes], settings, tmp_path / "run"):
        assert result.metric.name == "centre_f1" and result.truth.sum() == 21
        ours, blind = (summarise(result, 50).curves[e].scores[0].value for e in (0, 1))
        assert ours == 1.0 and blind < 0.5
        hits, found = result.predicted[0, 0, 0].sum(0)
        assert (hits, found) == (21, 21), result.predictor


def test_a_task_that_is_not_dense_and_a_second_target_are_refused(masks, boxes):
    masks.config.dense = "grade"
    with pytest.raises(ProbeError, match="no segmentation or detection task; it has"):
        dense_truth(masks, SIDE)
    masks.config.area_share = ["tumour"]
    with pytest.raises(ProbeError, match="excludes area_share"):
        dense_truth(masks, SIDE)
    boxes.store.mpp = 0.0
    with pytest.raises(ProbeError, match=r"the size of a pixel is unknown.*option mpp"):
        dense_truth(boxes, SIDE)
