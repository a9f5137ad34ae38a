"""Dense probes: cells get the right class, subsets are whole images, and scores are Dice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

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
from evaluation.probe.dense import SAMPLE, cells_of, dense_task
from evaluation.probe.features import extract
from evaluation.report.report import write_report
from evaluation.statistics.metrics import score
from evaluation.statistics.predictions import read_predictions
from evaluation.statistics.summary import summarise
from evaluation.study import run_study
from models.inference.frozen_encoder import load_encoder

SIDE, PATIENTS = 128, 6  # a grid of 8 x 8 cells


class Colour:
    """An encoder whose dense features are the mean colours of cells of 8 pixels."""

    def __init__(self, name: str, blind: bool = False) -> None:
        self.name, self.identity, self.blind = name, name, blind

    def embed_dense(self, images: Tensor, precision: str = "fp32") -> Tensor:
        maps = avg_pool2d(images.permute(0, 3, 1, 2).float(), 8)
        return torch.zeros_like(maps) if self.blind else maps


def prepared(reader: DatasetReader) -> PathologyDataModule:
    prepare(reader)
    return PathologyDataModule(reader=reader)


@pytest.fixture
def masks(tmp_path: Path) -> PathologyDataModule:
    """Two images of each patient; tumour is red, a corner is not labelled."""
    rng = np.random.default_rng(0)
    for number in range(2 * PATIENTS):
        cells = rng.random((8, 8)) < (number + 2) / 20
        mask = np.kron(cells, np.ones((16, 16))).astype(np.uint8)
        image = np.where(mask[..., None] == 1, (200, 30, 30), (60, 60, 200)).astype(np.uint8)
        image += rng.integers(0, 20, image.shape, np.uint8)
        mask[:32, :32] = 255
        name = f"p{number // 2}_{number}.png"
        write_image(tmp_path / "image_masks/images" / name, image)
        write_image(tmp_path / "image_masks/masks" / name, mask)
    options = {"classes": ["background", "tumour"], "group": "^(p.)_"}
    config = DatasetConfig(patch_size=SIDE, options=options, dense="mask", folds=3)
    data = DataConfig(str(tmp_path), str(tmp_path / "stores"), image_size=SIDE)
    reader = ImageMasks(data, config)
    prepare(reader)
    config.dense = reader.store.tasks[0].name
    return PathologyDataModule(reader=reader)


def test_a_study_of_cells_is_nested_over_images_and_scores_dice(masks, tmp_path):
    settings = ProbeConfig(
        sizes=[2, 4, 0], repeats=2, trees=20, jobs=1, backend="threading", bootstrap=50,
        predictors=["forest", "linear"],
    )  # fmt: skip
    encoders = [Colour("ours"), Colour("imagenet:blind", blind=True)]
    folder = tmp_path / "run"
    results = run_study(encoders, [masks], settings, folder)
    assert [result.predictor for result in results] == ["forest", "linear"]
    for result in results:
        assert result.metric.name == "dice" and result.positive == 1
        assert result.n_train.tolist() == [[2] * 3, [4] * 3, [8] * 3]
        statistics = summarise(result, 50)
        assert statistics.images == 12 and statistics.groups == PATIENTS
        assert statistics.curves[0].scores[-1].value == 1.0  # colour tells tissue without error
        assert statistics.curves[1].scores[-1].value < 0.9
        assert statistics.comparisons[0].verdict == 1
        # Dice = 2 TP / (2 TP + FP + FN), over the cells of all test images
        found, truth = result.predicted[1, 0, 0], result.truth
        hits = int((found & truth).sum())
        dice = 2 * hits / max(1, int(found.sum()) + int(truth.sum()))
        assert score(result.metric, truth, found, 1) == pytest.approx(dice)
    write_report(folder)
    assert "Dice" in (folder / "report.html").read_text()
    assert read_predictions(folder / "probe_predictions.h5")[0].metric.name == "dice"


def test_cells_have_the_most_frequent_class_and_unlabelled_ones_do_not_count(masks, tmp_path):
    cells = cells_of(masks, SIDE)
    assert cells.side == 8 and len(cells.image) == 12 * SAMPLE
    table = extract(Colour("ours"), masks, tmp_path / "cache")
    assert table.dense is TaskKind.SEGMENTATION and table.classes == ("background", "tumour")
    assert not set(cells.place.tolist()) & {0, 1, 8, 9}, "the corner"
    for row in range(12):
        of_image = cells.image == row
        mask = masks.store.masks(dense_task(masks).name, [row])[0][8::16, 8::16]
        assert (mask.ravel()[cells.place[of_image]] == cells.target[of_image]).all()
        labelled = mask.ravel()[mask.ravel() != 255]
        assert cells.amount[row] == pytest.approx(labelled.mean())
    red = table.features[table.targets == 1, 0]
    assert red.min() >= 200 > 80 >= table.features[table.targets == 0, 0].max()


def test_every_encoder_predicts_the_same_cells(masks, tmp_path):
    tables = [
        extract(load_encoder(spec, SIDE), masks, tmp_path / "cache")
        for spec in ("random:resnet18", "random:vit_tiny_patch16_224")
    ]
    assert [table.features.shape[1] for table in tables] == [256, 192]
    np.testing.assert_array_equal(tables[0].targets, tables[1].targets)
    np.testing.assert_array_equal(tables[0].rows, tables[1].rows)
    half = extract(load_encoder("random:resnet18", SIDE), masks, tmp_path / "cache", role="report")
    assert 0 < len(half.rows) < len(tables[0].rows)


def test_detection_asks_for_cells_with_a_centre(tmp_path):
    boxes = [[4, 4, 10, 10], [100, 20, 12, 12], [120, 120, 16, 16]]  # x, y, width, height
    found = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "mitosis"}]}
    for number in range(4):
        name = f"p{number}.png"
        write_image(tmp_path / "coco_boxes/images" / name, np.full((SIDE, SIDE, 3), 90, np.uint8))
        found["images"].append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        for box in boxes[: number or 1]:
            box = [*box[:2], min(box[2], SIDE - box[0]), min(box[3], SIDE - box[1])]
            found["annotations"].append(
                {"id": len(found["annotations"]), "image_id": number, "category_id": 1, "bbox": box}
            )
    (tmp_path / "coco_boxes/annotations.json").write_text(json.dumps(found))
    config = DatasetConfig(patch_size=SIDE, options={"group": "^(p.)"}, folds=2)
    data = prepared(
        CocoBoxes(DataConfig(str(tmp_path), str(tmp_path / "s"), image_size=SIDE), config)
    )
    config.dense = data.store.tasks[0].name
    cells = cells_of(data, SIDE)
    assert len(cells.image) == 4 * 64
    for row in range(4):
        number = int(Path(data.store.source(row)).stem[1:]) or 1
        positive = cells.place[(cells.image == row) & (cells.target == 1)].tolist()
        assert positive == [0, 1 * 8 + 6, 7 * 8 + 7][:number]
    settings = ProbeConfig(sizes=[0], repeats=1, trees=3, jobs=1, backend="threading")
    (result,) = run_study([Colour("ours")], [data], settings, tmp_path / "run")
    assert result.metric.name == "cell_f1" and result.n_train.sum() == 4


def test_a_task_that_is_not_dense_and_a_second_target_are_refused(masks):
    masks.config.dense = "grade"
    with pytest.raises(ProbeError, match="no segmentation or detection task; it has"):
        dense_task(masks)
    masks.config.area_share = ["tumour"]
    with pytest.raises(ProbeError, match="excludes area_share"):
        dense_task(masks)
