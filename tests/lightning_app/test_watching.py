"""Whole commands on a terminal and without one: what someone sees who watches them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datamodules.core import progress
from lightning_app.callbacks.monitors import ShowProgress, Throughput
from tests.models.test_module import fit, make
from tests.support.terminals import lines_of, run_python

PROGRAM = """
import sys
from datamodules.core import progress
progress.DRAW_S = 0
from lightning_app.cli import main
sys.exit(main(sys.argv[1:]))
"""
SETTINGS = """
name: watched
data: {root: published, stores: stores, forge: 12, image_size: 64, workers: 0, val_limit: 6,
  batch_size: 2, train: {glas: {patch_size: 64}}, unseen: {breastpathq: {patch_size: 64}}}
model: {encoder: test_convnext, weights: random, neck_channels: 16}
trainer: {epochs: 2, steps_per_epoch: 3, log_every: 1, accelerator: cpu, precision: 32-true}
probe: {baselines: [random], sizes: [4, 0], repeats: 2, trees: 10, bootstrap: 50, map_points: 0,
  neighbours: 0, jobs: 1}
"""
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}


@pytest.mark.slow
def test_a_narrow_ascii_terminal_shows_each_long_step_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SETTINGS)
    command = ["pretrain", "--config", "small.yaml", "wandb.mode=offline"]
    code, written = run_python(PROGRAM, command, tmp_path, 40, **ASCII)
    (tmp_path / "written.txt").write_text(written)
    assert code == 0, written[-3000:]
    assert written.isascii() and "Traceback" not in written
    shown = lines_of(written)
    for step in (
        "preparing glas - [0-9]+ patches",
        "epoch 2/2 - 6/6 steps.*",
        "validation - [0-9]+/[0-9]+ batches.*",
        "final scores - [0-9]+/[0-9]+ batches.*",
        r"features of breastpat.* - [0-9]+/[0-9]+ images.*",
        "probing - [0-9]+/[0-9]+ probes.*",
    ):
        matching = [line for line in shown if re.fullmatch(step, line)]
        assert matching and max(map(len, matching)) <= 40, (step, shown)
    assert sum(line.startswith("epoch 1/2 - step 3 - loss") for line in shown) == 1
    assert re.search("\x1b\\[2K[^\n]*epoch 1/2 - step 3", written)  # not beside the steps
    (kept,) = tmp_path.glob("runs/*/wandb/offline-run-*/files/output.log")
    assert kept.read_text().count("/6 steps") <= 3  # what stood last of each line, not each step


def test_a_log_gets_steps_losses_and_speeds_of_a_training_when_a_line_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    caplog.set_level("INFO", logger="datamodules.core.progress")
    fit(make(), tmp_path, epochs=2, callbacks=[Throughput(1), ShowProgress(2)])
    line = (
        r"epoch 2/2 · 5/6 steps · \S+ \w+ left · loss \d\.\d{3} · \d+ images/s · "
        r"\d+ % waiting for data"
    )
    assert [m for m in caplog.messages if re.fullmatch(line, m)], caplog.messages
    assert any(re.match(r"validation · 1/\d", message) for message in caplog.messages)
