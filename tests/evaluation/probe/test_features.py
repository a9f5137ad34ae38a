"""Frozen features are in store order, cached by what determines them and mapped read-only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import DiskError, ProbeError
from datamodules.core.records import Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.own_data.image_masks import ImageMasks
from datamodules.prepare import prepare
from datamodules.stream.batch import MultiTaskBatch, Part
from evaluation.config import ProbeConfig
from evaluation.probe.features import extract, probe_target, probe_task
from evaluation.probe.folds import groups_of_role
from evaluation.study import run_study
from tests.support.small_disks import Disk

TASK = Task("tumour", TaskKind.CLASSIFICATION, ("no", "yes"), positive="yes")
SCORE = Task("score", TaskKind.REGRESSION)


class Colours:
    """An encoder whose features are mean colours; it counts the images it sees."""

    def __init__(self, name: str = "colours", shift: float = 0.0) -> None:
        self.name, self.identity, self.shift, self.seen = name, f"shift {shift}", shift, 0

    def embed(self, images: Tensor, precision: str = "fp32") -> Tensor:
        self.seen += len(images)
        return images.float().mean(dim=(1, 2)) + self.shift


class Memory:
    """A store in memory: 25 one-coloured images of five patients."""

    def __init__(self, digest: str = "a") -> None:
        self.digest = digest
        self.tasks: tuple[Task, ...] = (Task("cells", TaskKind.DETECTION, ("cell",)), TASK, SCORE)
        self.split = np.zeros(25, np.uint8)
        self.group = np.repeat(np.arange(5, dtype=np.int32), 5)
        self.group_names = ["8975", "14082", "14306", "9022", "9077"]
        self.colours = np.arange(75, dtype=np.uint8).reshape(25, 1, 1, 3)

    synthetic = False

    def __len__(self) -> int:
        return len(self.split)

    def images(self, indices: Sequence[int]) -> np.ndarray[Any, Any]:
        return np.broadcast_to(self.colours[list(indices)], (len(indices), 8, 8, 3))

    def target(self, task: str) -> np.ndarray[Any, Any]:
        labels = np.arange(25) % 2
        return labels if task == "tumour" else labels.astype(np.float32) / 3


@dataclass
class Data:
    """A dataset that serves its store in padded batches."""

    store: Memory = field(default_factory=Memory)
    name: str = "unseen"
    config: DatasetConfig = field(default_factory=lambda: DatasetConfig(folds=5))
    data: DataConfig = field(default_factory=lambda: DataConfig(image_size=8))
    short: int = 0

    def evaluation_loader(self, input_size: int, batch_size: int) -> Iterator[MultiTaskBatch]:
        rows = np.arange(25 - self.short)
        for start in range(0, len(rows), batch_size):
            index = rows[start : start + batch_size]
            padded = np.r_[index, np.zeros(batch_size - len(index), int)]
            images = np.broadcast_to(
                self.store.colours[padded], (batch_size, input_size, input_size, 3)
            )
            part = Part(self.name, 0, batch_size, {}, torch.from_numpy(padded), len(index))
            yield MultiTaskBatch(torch.from_numpy(images.copy()), [part])


def test_features_are_in_store_order_without_padding(
    tmp_path: Path,
) -> None:
    encoder, data = Colours(), Data()
    found = extract(encoder, data, tmp_path, batch_size=4)
    np.testing.assert_allclose(found.features, data.store.colours.reshape(25, 3))
    assert encoder.seen == 25
    assert (found.positive, found.folds, found.classes) == (1, 5, ("no", "yes"))
    with pytest.raises(ValueError, match="read-only"):
        found.features[0, 0] = 1


def test_features_are_read_from_the_cache_the_second_time(tmp_path: Path) -> None:
    encoder = Colours()
    first = extract(encoder, Data(), tmp_path, batch_size=4)
    again = extract(encoder, Data(), tmp_path, batch_size=10)
    assert encoder.seen == 25
    np.testing.assert_array_equal(first.features, again.features)
    assert first.key == again.key


def test_a_cache_on_a_full_disk_is_one_error_and_leaves_nothing(small_disk: Disk) -> None:
    class Wide(Colours):
        def embed(self, images: Tensor, precision: str = "fp32") -> Tensor:
            return super().embed(images).repeat(1, 4096)

    needed = 4 * 25 * 3 * 4096
    small_disk.fill(leave=needed // 2)
    with pytest.raises(DiskError, match=r"disk: needs about 1\.2 MB, 0\.6 MB are free"):
        extract(Wide(), Data(), small_disk.place)
    small_disk.make_room()
    small_disk.fill(leave=needed)  # which lacks what HDF5 adds
    with pytest.raises(OSError, match="No space left") as caught:
        extract(Wide(), Data(), small_disk.place)
    assert str(small_disk.place / "unseen-colours-") in str(caught.value.filename)
    assert small_disk.files() == []
    small_disk.make_room()
    assert extract(Wide(), Data(), small_disk.place).features.shape == (25, 3 * 4096)


@pytest.mark.parametrize("change", ["weights", "store", "size", "precision", "task"])
def test_everything_that_determines_the_features_changes_the_cache_file(
    tmp_path: Path, change: str
) -> None:
    extract(Colours(), Data(), tmp_path)
    encoder = Colours(shift=1.0) if change == "weights" else Colours()
    data = Data(
        store=Memory("b" if change == "store" else "a"),
        config=DatasetConfig(folds=5, input_size=4 if change == "size" else None),
    )
    precision = "bf16" if change == "precision" else "fp32"
    if change == "task":
        data.store.tasks = (SCORE,)
    extract(encoder, data, tmp_path, precision=precision)
    assert encoder.seen == 25
    assert len(list(tmp_path.glob("*.h5"))) == 2


def test_both_halves_share_one_cache_file_and_no_patient(tmp_path: Path) -> None:
    encoder, data = Colours(), Data()
    whole, develop, report = (
        extract(encoder, data, tmp_path, role=role) for role in ("all", "develop", "report")
    )
    assert encoder.seen == 25 and len(list(tmp_path.iterdir())) == 1
    assert sorted([*develop.rows, *report.rows]) == list(range(25))
    assert not set(develop.groups) & set(report.groups)
    assert len({whole.key, develop.key, report.key}) == 3
    for half in (develop, report):
        np.testing.assert_array_equal(half.features, whole.features[half.rows])
        np.testing.assert_array_equal(half.targets, whole.targets[half.rows])
    data.store.group_names = ["14082"] * 5
    with pytest.raises(ProbeError, match="none of its 5 groups is in the develop half"):
        extract(encoder, data, tmp_path, role="develop")


def test_a_study_on_one_half_tests_only_its_images(tmp_path: Path) -> None:
    settings = ProbeConfig(
        sizes=[4], repeats=1, trees=5, jobs=1, bootstrap=20, map_points=0, role="report"
    )
    data = Data(config=DatasetConfig(folds=2))
    (result,) = run_study([Colours(), Colours("other", 1.0)], [data], settings, tmp_path)
    expected = np.flatnonzero(groups_of_role(data.store.group_names, "report")[data.store.group])
    np.testing.assert_array_equal(result.rows, expected)
    np.testing.assert_array_equal(result.truth, data.store.target("tumour")[expected])


def test_an_incomplete_pass_leaves_no_cache_file(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="gave 22 of 25 images"):
        extract(Colours(), Data(short=3), tmp_path)
    with pytest.raises(ProbeError, match="not finite"):
        extract(Colours(shift=float("nan")), Data(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_cache_file_is_reported_and_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = np.array(extract(Colours(), Data(), tmp_path).features)
    (path,) = tmp_path.glob("*.h5")
    whole = path.read_bytes()
    place = whole.index(expected.tobytes())
    zeros = whole[:place] + bytes(expected.nbytes // 2) + whole[place + expected.nbytes // 2 :]
    for damaged in (b"not HDF5", whole[: len(whole) // 2], zeros, b""):
        path.write_bytes(damaged)
        caplog.clear()
        encoder = Colours()
        np.testing.assert_array_equal(extract(encoder, Data(), tmp_path).features, expected)
        assert encoder.seen == 25
        assert "damaged feature cache" in caplog.text
        assert path.read_bytes() == whole


def test_the_first_classification_or_regression_task_is_probed() -> None:
    assert probe_task("d", Memory().tasks) is TASK
    with pytest.raises(ProbeError, match=r"cells \(detection\)"):
        probe_task("d", Memory().tasks[:1])


def test_the_area_of_classes_is_a_regression_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rows in (("a_1", 16), ("b_1", 4)):
        mask = np.full((64, 64), 255, np.uint8)  # the right half is not labelled
        mask[:, :32] = 0
        mask[:rows, :32] = 2
        mask[rows : 2 * rows, :32] = 1
        write_image(tmp_path / f"image_masks/images/{name}.png", np.zeros((64, 64, 3), np.uint8))
        write_image(tmp_path / f"image_masks/masks/{name}.png", mask)
    options = {"classes": ["background", "tumour", "lymphocyte"], "group": "^(.)_"}
    config = DatasetConfig(patch_size=64, options=options, area_share=["tumour", "lymphocyte"])
    data = ImageMasks(DataConfig(str(tmp_path), str(tmp_path / "stores")), config)
    prepare(data)
    task, targets = probe_target(data)
    assert task.kind is TaskKind.REGRESSION and task.name == "area of tumour, lymphocyte"
    np.testing.assert_allclose(targets, [0.5, 0.125])
    unlabelled = np.full((1, 64, 64), 255, np.uint8)
    with monkeypatch.context() as changed:  # beside another task, such a patch may be stored
        changed.setattr(data.store, "masks", lambda task, rows: unlabelled)
        with pytest.raises(ProbeError, match=r"labelled in a patch of images/a_1\.png"):
            probe_target(data)
    data.config.area_share = ["stroma"]
    message = "area_share=.'stroma'.: no segmentation task .* background, tumour, lymphocyte"
    with pytest.raises(ProbeError, match=message):
        probe_target(data)


def test_a_study_writes_its_files_and_computes_nothing_twice(tmp_path: Path) -> None:
    settings = ProbeConfig(sizes=[4, 0], repeats=2, trees=3, jobs=1, backend="threading")
    encoders = [Colours("ours"), Colours("imagenet:x", shift=2.0)]
    (result,) = run_study(encoders, [Data()], settings, tmp_path)
    assert result.baseline == "imagenet:x"
    table = pd.read_csv(tmp_path / "probes.csv", keep_default_na=False)
    assert len(table[table.predictor == "forest"]) == 2 * 5 * 2 * 2
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "probes.csv",
        "probe_predictions.h5",
        "probe_journal.jsonl",
        "embeddings.json",
        "neighbours",
        "features",
    }
    before = (tmp_path / "probe_journal.jsonl").read_bytes()
    (again,) = run_study(encoders, [Data()], settings, tmp_path)
    np.testing.assert_array_equal(again.predicted, result.predicted)
    assert (tmp_path / "probe_journal.jsonl").read_bytes() == before
    assert [encoder.seen for encoder in encoders] == [25, 25]
    with pytest.raises(ProbeError, match="nothing to probe"):
        run_study([], [Data()], settings, tmp_path)
