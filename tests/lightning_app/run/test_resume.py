"""A run that is killed and resumed ends exactly like an uninterrupted one."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from datamodules.core.errors import ConfigError, TrainingError
from lightning_app.config import load_config, save_config
from lightning_app.loggers.build import build_loggers
from lightning_app.loggers.csv_logger import CsvLog, read_rows
from lightning_app.run.checkpoint_io import AtomicCheckpointIO, checkpoints_in, newest_readable
from lightning_app.run.folder import create_run_folder
from lightning_app.run.resume import newest_unfinished, resumed_config

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = REPOSITORY / "tests" / "support" / "kill_and_resume_script.py"
SETTINGS = [
    "data.image_size=32",
    "data.val_limit=4",
    "data.batch_size=2",
    "data.augmentation.stain=0.1",
    "model.drop_path=0.2",
    "optim.ema_decay=0.5",
    "trainer.epochs=2",
    "trainer.checkpoint_every=2",
    "probe.baselines=[]",
]
ALL_AT_ONCE = ["data.tasks_per_batch=0", "data.workers=2", "trainer.steps_per_epoch=6"]
ONE_BY_ONE = [
    "data.tasks_per_batch=1",
    "data.workers=0",
    "trainer.rounds_per_step=2",
    "trainer.steps_per_epoch=3",
    "model.encoder=test_resnet",  # its BatchNorm layers have statistics to lose
]
BETWEEN = {"at": "on_train_batch_start"}


def run_with_kills(
    folder: Path, settings: list[str], runs: dict[str, list[dict[str, Any]]]
) -> list[str]:
    """Output lines of runs that are killed and resumed.

    Each attempt ends with "<run>: <code> at <steps>".
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(SCRIPT), str(folder)]
    command += [json.dumps([*SETTINGS, *settings]), json.dumps(runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = done.stdout.splitlines()
    for name in runs:
        last = [line for line in printed if line.startswith(f"{name}: ")][-1]
        assert last.startswith(f"{name}: 0 at"), done.stdout[-2000:] + done.stderr[-3000:]
    return printed


def assert_same(uninterrupted: Path, killed: Path) -> None:
    runs = []
    for folder in (uninterrupted, killed):
        (run,) = folder.iterdir()
        runs.append(run)
    expected, actual = (safetensors.torch.load_file(run / "encoder.safetensors") for run in runs)
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name
    pd.testing.assert_frame_equal(*(logged(run) for run in runs))
    scores = [json.loads((run / "encoder.json").read_text())["scores"] for run in runs]
    assert scores[0] == scores[1] != {}


def logged(folder: Path) -> pd.DataFrame:
    """All rows without columns that depend on time."""
    table = pd.read_csv(folder / "metrics.csv").dropna(axis="columns", how="all")
    timeless = table[[name for name in table if not name.startswith("speed/")]]
    assert not timeless.duplicated().any()
    return timeless


@pytest.mark.slow
def test_a_run_killed_at_random_times_ends_with_the_same_weights_and_rows(
    small_folder: Callable[[str], Path], pytestconfig: pytest.Config
) -> None:
    count = pytestconfig.getoption("--kills")
    steps = 2 * (count + 2)
    settings = [*ALL_AT_ONCE, f"trainer.steps_per_epoch={steps // 2}"]
    rng = random.Random(count)
    kills: list[dict[str, Any]] = []
    for number in range(count):  # in the middle of steps, checkpoints and validations
        kills.append({**BETWEEN, "step": 2 * number + 1, "within": rng.uniform(0, 2)})
        if number % 4 == 3:  # while it starts
            kills[-1] = {"seconds": rng.uniform(0, 1)}
    folder = small_folder("resume")
    printed = run_with_kills(folder, settings, {"uninterrupted": [], "killed": kills})
    assert sum(line.startswith("killed: -9") for line in printed) == count
    assert_same(folder / "uninterrupted", folder / "killed")


@pytest.mark.slow
def test_a_run_stopped_by_signals_and_at_the_worst_times_ends_the_same(
    small_folder: Callable[[str], Path],
) -> None:
    kills = [
        {"at": "on_train_batch_end", "step": 1},  # before the first checkpoint
        {**BETWEEN, "step": 1, "signal": signal.SIGTERM},
        {"at": "on_validation_end", "step": 3},
        {"at": "on_train_epoch_end", "step": 3},
        {**BETWEEN, "step": 2, "signal": signal.SIGUSR1},
        {**BETWEEN, "step": 4, "signal": signal.SIGINT},
        {"at": "on_validation_start", "step": 6, "signal": signal.SIGTERM},
        {"at": "on_fit_end", "step": 6},
    ]
    folder = small_folder("resume")
    printed = run_with_kills(folder, ONE_BY_ONE, {"steady": [], "ended": kills})
    ends = [line.removeprefix("ended: ") for line in printed if line.startswith("ended: ")]
    # After a signal the optimizer step or the validation completes, and a checkpoint is saved.
    assert ends == [
        "-9 at 0",
        "143 at 2",
        "-9 at 2",
        "-9 at 2",
        "138 at 3",
        "130 at 5",
        "143 at 6",
        "-9 at 6",
        "0 at 6",
    ]
    (run,) = (folder / "ended").iterdir()
    assert f"stopped after step 2; go on with: pretrain resume={run}" in printed
    assert_same(folder / "steady", folder / "ended")


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    disk = AtomicCheckpointIO()
    disk.save_checkpoint({"global_step": 1, "w": torch.zeros(1000)}, folder / "step0000001.ckpt")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(TrainingError) as caught:
            disk.save_checkpoint({"w": torch.zeros(100_000)}, folder / "step0000002.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    line = str(caught.value)
    assert "step0000002.ckpt: the checkpoint cannot be written (File too large)" in line
    assert "step0000001.ckpt is intact" in line and f"resume={tmp_path}" in line
    assert "\n" not in line
    assert [path.name for path in folder.iterdir()] == ["step0000001.ckpt"]
    assert newest_readable(folder) == (folder / "step0000001.ckpt", 1)


def test_a_damaged_checkpoint_is_reported_and_an_older_one_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        torch.save({"global_step": step}, tmp_path / f"step000000{step}.ckpt")
    whole = (tmp_path / "step0000002.ckpt").read_bytes()
    (tmp_path / "step0000002.ckpt").write_bytes(whole[: len(whole) // 2])
    assert newest_readable(tmp_path) == (tmp_path / "step0000001.ckpt", 1)
    (line,) = caplog.messages
    assert "step0000002.ckpt: cannot be read" in line and "older" in line
    assert checkpoints_in(tmp_path) == [tmp_path / "step0000001.ckpt"]
    (tmp_path / "step0000001.ckpt").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"step0000001\.ckpt: cannot be read.*start a new run"):
        newest_readable(tmp_path)
    assert newest_readable(tmp_path / "empty") is None


def test_a_flipped_bit_in_a_checkpoint_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    weights = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    for step in (1, 2):
        torch.save({"global_step": step, "w": weights}, tmp_path / f"step000000{step}.ckpt")
    newest = tmp_path / "step0000002.ckpt"
    whole, rng, noticed = newest.read_bytes(), np.random.default_rng(0), 0
    for place in rng.integers(0, len(whole), 60).tolist():
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        newest.write_bytes(changed)
        path, step = newest_readable(tmp_path) or (tmp_path, 0)
        noticed += step == 1
        if step == 2:
            assert torch.equal(torch.load(path, weights_only=True)["w"], weights)
        (tmp_path / "step0000002.ckpt.damaged").unlink(missing_ok=True)
    assert noticed > 40


def test_the_csv_log_keeps_rows_up_to_the_checkpoint_and_drops_a_truncated_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.csv"
    log = CsvLog(path)
    log.log_metrics({"a": torch.tensor(0.1)}, 0)
    log.log_metrics({"a": 0.2, "epoch": 1.0}, 1)
    log.log_metrics({"b": 0.3}, 12)
    assert path.read_text() == "a,b,epoch,step\n0.10000000149011612,,,0\n0.2,,1,1\n,0.3,,12\n"
    path.write_text(path.read_text()[:-2])  # step 12 would read as 1
    again = CsvLog(path)
    again.continue_after(2)
    again.log_metrics({"b": 0.4, "c": 1.0}, 2)
    rows = [(row["step"], row.get("a"), row.get("b")) for row in read_rows(path)]
    assert rows == [("0", "0.10000000149011612", None), ("1", "0.2", None), ("2", None, "0.4")]


def test_a_folder_that_is_not_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no config\.yaml"):
        resumed_config(tmp_path, [])


def test_a_finished_run_cannot_be_resumed(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((repository / "configs/demo.yaml").read_text())
    (tmp_path / "report.html").write_text("")
    with pytest.raises(ConfigError, match="finished"):
        resumed_config(tmp_path, [])


def test_a_resumed_run_keeps_its_settings(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((repository / "configs/demo.yaml").read_text())
    assert resumed_config(tmp_path, ["trainer.devices=1"]).name == "demo"
    with pytest.raises(ConfigError, match=r"optim\.encoder_lr=1.*keeps its settings"):
        resumed_config(tmp_path, ["optim.encoder_lr=1"])


def test_resume_auto_picks_the_newest_unfinished_run_with_the_same_settings(
    repository: Path, tmp_path: Path
) -> None:
    demo = repository / "configs/demo.yaml"
    config = load_config(demo, [f"out={tmp_path}"])
    assert newest_unfinished(config) is None
    first = create_run_folder(config)
    other = load_config(demo, [f"out={tmp_path}", "optim.encoder_lr=1e-5"])
    create_run_folder(other)
    longer = load_config(demo, [f"out={tmp_path}", "trainer.checkpoint_minutes=1"])
    assert newest_unfinished(longer) == first
    (first / "report.html").write_text("")
    assert newest_unfinished(longer) is None
    save_config(config, first / "config.yaml")


def test_a_resumed_run_is_the_same_run_to_wandb(repository: Path, tmp_path: Path) -> None:
    config = load_config(repository / "configs/demo.yaml")
    origin = {"synthetic": True, "encoder": "convnext_atto", "commit": ""}
    first, again = (build_loggers(config, tmp_path, origin)[1] for _ in range(2))
    assert first.version == again.version == (tmp_path / "wandb_id.txt").read_text()


@pytest.mark.slow
def test_a_run_of_another_process_is_not_resumed(repository: Path, tmp_path: Path) -> None:
    config = load_config(repository / "configs/demo.yaml", [f"out={tmp_path}"])
    folder = create_run_folder(config)
    code = (
        "import sys, pathlib; from lightning_app.run.folder import claim; "
        "claim(pathlib.Path(sys.argv[1])); print(1, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert owner.stdout and owner.stdout.readline() == b"1\n"
    assert newest_unfinished(config) is None
    owner.kill()
    owner.communicate()
    assert newest_unfinished(config) == folder
