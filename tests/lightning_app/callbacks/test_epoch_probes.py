"""Probes during training: they keep to a budget, change nothing and may fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evaluation.probe.jobs import Journal
from lightning_app.pretrain import pretrain
from tests.support.probe_ranks import probed_run

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = REPOSITORY / "tests" / "support" / "probe_ranks.py"


@pytest.fixture(scope="module")
def place(small_folder: Callable[[str], Path]) -> Path:
    """One folder for all runs of this file."""
    return small_folder("probed")


@pytest.fixture(scope="module")
def probed(place: Path) -> Path:
    """A run with a probe after every epoch."""
    return pretrain(probed_run(place, "probe.every=1", "name=probed"))


@pytest.mark.slow
def test_a_training_with_probes_writes_a_table_and_curves_over_epochs(probed: Path) -> None:
    course = pd.read_csv(probed / "probe_course.csv")
    assert course["epoch"].unique().tolist() == [1, 2], "the last epoch has the study at the end"
    assert course["step"].unique().tolist() == [2, 4]
    assert set(course["encoder"]) == {probed.name, "random:test_convnext"}
    baseline = course[course["encoder"] == "random:test_convnext"]
    assert baseline["difference"].isna().all()
    np.testing.assert_array_equal(*(baseline[baseline["epoch"] == e]["value"] for e in (1, 2)))
    rows = course[course["encoder"] == probed.name]
    gain = rows["value"].to_numpy() - baseline["value"].to_numpy()
    np.testing.assert_allclose(rows["difference"], gain, atol=1e-12)
    assert ((rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"])).all()

    logged = pd.read_csv(probed / "metrics.csv")
    columns = [c for c in logged.columns if c.startswith("probe/breastpathq/mse_6")]
    assert sorted(columns) == ["probe/breastpathq/mse_6", "probe/breastpathq/mse_6_gain"]
    few = rows[rows["size"] == 6]
    seen = logged.dropna(subset="probe/breastpathq/mse_6")
    assert seen["step"].tolist() == [1, 3]
    np.testing.assert_allclose(seen["probe/breastpathq/mse_6"], few["value"])
    assert len(Journal(probed / "probe_journal.jsonl")) == 4 + 4 * 3, "the baseline's cells once"
    assert not list(probed.glob(".features*"))


@pytest.mark.slow
def test_training_is_bit_identical_with_without_and_with_failing_probes(
    place: Path, probed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = pretrain(probed_run(place, "name=plain"))
    assert not (plain / "probe_course.csv").exists()
    hurried = pretrain(probed_run(place, "name=hurried", "probe.every=1", "probe.every_budget=0"))
    assert "time ran out" in caplog.text and "training continues" in caplog.text
    expected = torch.load(plain / "checkpoints/last.ckpt", weights_only=True)
    for run in (probed, hurried):
        actual = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        for part in ("state_dict", "current_model_state"):
            assert actual[part].keys() == expected[part].keys()
            for key, value in expected[part].items():
                assert torch.equal(actual[part][key], value), key
    pd.testing.assert_frame_equal(
        pd.read_csv(probed / "probes.csv").drop(columns="encoder"),
        pd.read_csv(plain / "probes.csv").drop(columns="encoder"),
    )


@pytest.mark.slow
def test_any_failure_of_a_probe_leaves_training_and_its_result_intact(place: Path) -> None:
    config = probed_run(place, "name=broken", "probe.every=1")
    config.data.stores = str(place / "stores")
    features = place / "stores" / "features"
    kept = features.rename(place / "kept")
    features.write_text("a file where a folder should be")
    try:
        with pytest.raises(OSError, match="features"):
            pretrain(config)
    finally:
        features.unlink()
        kept.rename(features)
    (run,) = (place / "runs").glob("broken-*")
    assert (run / "encoder.safetensors").is_file() and (run / "encoder.json").is_file()
    assert pd.read_csv(run / "metrics.csv")["val/summary"].notna().sum() == 3


@pytest.mark.slow
def test_the_other_rank_waits_for_a_probe_longer_than_the_timeout(place: Path) -> None:
    out = place / "two"
    out.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "WITNESS": str(out),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(SCRIPT), str(place)]
    before = set((place / "runs").glob("*"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    (run,) = set((place / "runs").glob("*")) - before
    course = pd.read_csv(run / "probe_course.csv")
    assert course["epoch"].unique().tolist() == [2]
    assert (course["repeats"] < 1000).all(), "the budget ended the probe"
    assert (run / "report.html").is_file()
