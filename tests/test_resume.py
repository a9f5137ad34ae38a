"""A run that is killed and resumed ends as one that never was."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch

from datamodules.errors import ConfigError
from lightning_app.resume import resumed_config

KILLS = 3
SETTINGS = [
    "--config",
    "configs/demo.yaml",
    "data.forge=24",
    "data.image_size=64",
    "data.val_limit=4",
    "data.batch_size=2",
    "data.augmentation.stain=0.1",
    "model.encoder=convnext_atto",
    "model.weights=random",
    "model.drop_path=0.2",
    "model.neck_channels=16",
    "optim.ema_decay=0.5",
    "trainer.epochs=2",
    "trainer.steps_per_epoch=6",
    "trainer.log_every=1",
    "trainer.checkpoint_every=1",
    "trainer.accelerator=cpu",
    "wandb.mode=disabled",
    "probe.baselines=[]",
    "probe.sizes=[0]",
    "probe.repeats=1",
    "probe.trees=2",
    "probe.bootstrap=10",
    "probe.map_points=0",
]


def start(repository: Path, place: Path, *more: str) -> subprocess.Popen[str]:
    place.mkdir(exist_ok=True)
    if not (place / "configs").exists():
        (place / "configs").symlink_to(repository / "configs")
    environment = {**os.environ, "PYTHONPATH": str(repository), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "lightning_app", "pretrain", *SETTINGS, *more]
    return subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen[str]) -> None:
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed[-3000:]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Forged data that all runs of this file share."""
    folder = tmp_path_factory.mktemp("data")
    return [f"data.root={folder}/published", f"data.stores={folder}/stores"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [["data.tasks_per_batch=0", "data.workers=2"], ["data.tasks_per_batch=1", "data.workers=0"]],
    ids=["K=all, 2 workers", "K=1 with accumulation, no worker"],
)
def test_a_run_killed_at_random_moments_ends_with_the_same_weights_and_rows(
    repository: Path, tmp_path: Path, data: list[str], how: list[str]
) -> None:
    finish(start(repository, tmp_path / "calm", *data, *how))
    rng = random.Random(0)
    for _ in range(KILLS):
        process = start(repository, tmp_path / "killed", *data, *how, "resume=auto")
        seen = count_checkpoints(tmp_path / "killed")
        deadline = time.monotonic() + 300
        # The kill falls between two checkpoints, at a random moment of the steps between.
        while count_checkpoints(tmp_path / "killed") == seen and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        process.communicate()
    finish(start(repository, tmp_path / "killed", *data, *how, "resume=auto"))

    (calm,) = (tmp_path / "calm/runs").iterdir()
    (killed,) = (tmp_path / "killed/runs").iterdir()
    wanted, found = (
        safetensors.torch.load_file(folder / "encoder.safetensors") for folder in (calm, killed)
    )
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name
    rows = [losses(folder) for folder in (calm, killed)]
    pd.testing.assert_frame_equal(*rows)


def count_checkpoints(place: Path) -> float:
    """Changes whenever a checkpoint is written."""
    return max((p.stat().st_mtime for p in place.glob("runs/*/checkpoints/*.ckpt")), default=0.0)


def losses(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "metrics.csv")
    chosen = ["step", *sorted(c for c in table if c.startswith(("train/", "val/", "lr")))]
    kept = table[chosen].dropna(how="all", subset=chosen[1:])
    assert not kept.duplicated().any()
    return kept.sort_values(chosen, ignore_index=True)


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no config\.yaml"):
        resumed_config(tmp_path, [])


def test_a_finished_run_cannot_be_resumed(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((repository / "configs/demo.yaml").read_text())
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(ConfigError, match="finished"):
        resumed_config(tmp_path, [])


def test_a_resumed_run_keeps_its_settings(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((repository / "configs/demo.yaml").read_text())
    assert resumed_config(tmp_path, ["trainer.devices=1"]).name == "demo"
    with pytest.raises(ConfigError, match=r"optim\.encoder_lr=1.*keeps its settings"):
        resumed_config(tmp_path, ["optim.encoder_lr=1"])
