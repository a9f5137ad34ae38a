"""Runs, exports, reports and features on a disk that is full, read-only or gone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from datamodules.core.atomic import write_table, write_text
from datamodules.core.records import Task, TaskKind
from datamodules.formats.images import write_image
from evaluation.probe.jobs import Journal
from evaluation.run_files import REPORT
from evaluation.statistics.predictions import write_predictions
from lightning_app.config import save_config
from lightning_app.loggers.csv_logger import CsvLog, read_rows
from models.config import ModelConfig, OptimConfig
from models.module import MultiTaskModule, TaskSpec
from tests.support.probe_tables import predictions
from tests.support.small_disks import Disk, Program, assert_one_line
from tests.support.train_ranks import small_run

STEPS = 8


@pytest.fixture
def recipe(small_folder: Callable[[str], Path], small_disk: Disk) -> Path:
    """Configuration of a small run whose folder lies on the small disk."""
    folder = small_folder("full")
    settings = [f"out={small_disk.place}/runs", f"trainer.steps_per_epoch={STEPS}"]
    config = small_run(folder, *settings, "trainer.checkpoint_every=2", "probe.baselines=[]")
    save_config(config, folder / "recipe.yaml")
    return folder / "recipe.yaml"


def when_logged(folder: Path, steps: int, act: Callable[[], None]) -> Callable[..., None]:
    """Act as soon as `metrics.csv` holds the loss of a step and a checkpoint exists."""

    def meanwhile(runs: Callable[[], bool]) -> None:
        while runs():
            logs = [*folder.glob("*/metrics.csv")]
            saved = [*folder.glob("*/checkpoints/step*.ckpt")]
            if saved and logs and len(logs[0].read_text().splitlines()) > steps:
                act()
                return
            time.sleep(0.005)

    return meanwhile


def only_run(disk: Disk) -> Path:
    (folder,) = (disk.place / "runs").iterdir()
    return folder


@pytest.mark.slow
def test_a_run_whose_disk_fills_up_ends_in_one_line_and_goes_on_when_there_is_room(
    recipe: Path, small_disk: Disk, program: Program, tmp_path: Path
) -> None:
    start = ["pretrain", "--config", str(recipe)]
    small_disk.fill(leave=200_000)
    result = program.run(start, tmp_path / "log")
    assert_one_line(result, "checkpoints: needs about", "0.2 MB are free", "set out=")
    small_disk.make_room()
    shutil.rmtree(small_disk.place / "runs")

    fills = when_logged(small_disk.place / "runs", 3, small_disk.fill)
    result = program.run(start, tmp_path / "log", fills)
    folder = only_run(small_disk)
    assert_one_line(result, str(folder))
    assert not [name for name in small_disk.files() if "partial" in name]
    assert not (folder / REPORT).exists()

    small_disk.make_room()
    code, printed = program.run(["pretrain", f"resume={folder}"], tmp_path / "log")
    assert code == 0, printed
    assert (folder / REPORT).is_file()
    steps = pd.read_csv(folder / "metrics.csv")["step"].drop_duplicates().tolist()
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] >= STEPS - 1


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["read-only", "deleted", "gone"])
def test_a_run_whose_disk_becomes_read_only_or_vanishes_ends_in_one_line(
    recipe: Path, small_disk: Disk, program: Program, tmp_path: Path, fate: str
) -> None:
    def act() -> None:
        if fate == "read-only":
            small_disk.protect()
        elif fate == "deleted":
            shutil.rmtree((small_disk.place / "runs").rename(small_disk.place / "going"))
        else:
            small_disk.unmount()

    start = ["pretrain", "--config", str(recipe)]
    result = program.run(start, tmp_path / "log", when_logged(small_disk.place / "runs", 3, act))
    assert_one_line(result, str(small_disk.place / "runs"))
    assert [path.name for path in small_disk.place.rglob("*.partial")] == []


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of about 1 MB of weights."""
    task = Task("tissue", TaskKind.CLASSIFICATION, ("stroma", "tumour"))
    settings = ModelConfig("test_convnext", weights="random", neck_channels=8)
    module = MultiTaskModule([TaskSpec("a", task, 0.5)], settings, OptimConfig(), image_size=32)
    path = tmp_path_factory.mktemp("checkpoint") / "step1.ckpt"
    content = {"state_dict": module.state_dict(), "global_step": 1, "callbacks": {}}
    content["hyper_parameters"] = dict(module.hparams)
    torch.save(content, path)
    return path


@pytest.mark.parametrize("leave", [0, 100_000])
def test_an_export_to_a_full_disk_is_one_line_and_leaves_nothing(
    checkpoint: Path, small_disk: Disk, program: Program, tmp_path: Path, leave: int
) -> None:
    export = ["export", str(checkpoint), "--out", str(small_disk.place / "encoder")]
    small_disk.fill(leave)
    assert_one_line(program.run(export, tmp_path / "log"), str(small_disk.place / "encoder"))
    assert small_disk.files() == []
    small_disk.make_room()
    assert program.run(export, tmp_path / "log")[0] == 0
    small_disk.protect()
    result = program.run(export, tmp_path / "log")
    assert_one_line(result, str(small_disk.place / "encoder"), "Read-only file system")


def test_features_on_a_full_disk_are_one_line_and_are_continued_when_there_is_room(
    checkpoint: Path, small_disk: Disk, program: Program, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", small_disk.place / "features.h5"
    images.mkdir()
    for number in range(60):
        write_image(images / f"{number}.png", np.full((40, 40, 3), 4 * number, np.uint8))
    command = ["embed", str(checkpoint), str(images), "--out", str(out), "--batch-size", "2"]
    small_disk.fill(leave=4096)
    assert_one_line(program.run(command, tmp_path / "log"), str(out), "needs about")
    assert small_disk.files() == []
    small_disk.make_room()

    def fill(runs: Callable[[], bool]) -> None:
        begun = small_disk.place / ".features.h5.partial"
        while runs() and not (begun.exists() and begun.stat().st_size):
            pass
        small_disk.fill()

    assert_one_line(program.run(command, tmp_path / "log", fill), str(out), "No space left")
    assert not out.exists()
    small_disk.make_room()
    code, printed = program.run(command, tmp_path / "log")
    assert code == 0 and "embeddings exist already" in printed
    with h5py.File(out) as file:
        assert np.isfinite(file["features"][:]).all() and len(file["paths"]) == 60
    assert small_disk.files() == ["features.h5"]


def test_files_of_a_report_on_a_full_disk_are_one_error_each_and_old_ones_stay(
    small_disk: Disk,
) -> None:
    """Every file of a run is written by one of these; each error names its path."""
    table = pd.DataFrame({"value": np.random.default_rng(0).random(20_000)})
    log = CsvLog(small_disk.place / "metrics.csv")
    log.log_metrics({"loss": 1.0}, 0)
    write_text(small_disk.place / "report.html", "old")
    small_disk.fill(leave=3 * 4096)
    journal = Journal(small_disk.place / "journal.jsonl")
    features = np.random.default_rng(0).random((2000, 8), np.float32)
    many = {f"metric {number}": 1 / 3 for number in range(300)}

    def log_rows(path: Path) -> None:
        for number in range(2000):
            log.log_metrics({"loss": 1 / 3}, number)
            assert path.read_bytes().endswith(b"\n"), "a row is cut short without an error"

    writes: dict[str, Callable[[Path], object]] = {
        "report.html": lambda path: write_text(path, "x" * 200_000),
        "probes.csv": lambda path: write_table(path, table),
        "predictions.h5": lambda path: write_predictions(path, [predictions(groups=400)]),
        "journal.jsonl": lambda path: journal.add("key", features),
        "metrics.csv": log_rows,
        "metrics.csv ": lambda path: log.log_metrics(many, 1),
    }
    for name, write in writes.items():
        path = small_disk.place / name.strip()
        with pytest.raises(OSError, match="No space left") as caught:
            write(path)
        assert caught.value.filename == str(path), name
    assert small_disk.files() in (["journal.jsonl", "metrics.csv", "report.html"],)
    assert (small_disk.place / "report.html").read_text() == "old"
    small_disk.make_room()
    again = CsvLog(small_disk.place / "metrics.csv")
    again.continue_after(100_000)
    again.log_metrics({"loss": 0.5}, 100_000)
    rows = [float(row["loss"]) for row in read_rows(small_disk.place / "metrics.csv")]
    assert set(rows) == {1.0, 1 / 3, 0.5} and rows[-1] == 0.5
    journal.add("key", features)
    assert set(Journal(small_disk.place / "journal.jsonl")) == {"key"}
