"""Ablations: their trainings, how machines share them, and their comparison."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datamodules.core.errors import ConfigError, ProbeError
from evaluation.figures.learning_curves import ablation_figure
from evaluation.statistics.ablation import ALL, Ablation, side_by_side, table_of
from evaluation.statistics.bootstrap import resampled_scores
from evaluation.statistics.metrics import MSE
from evaluation.statistics.summary import summarise
from lightning_app.commands.ablate import plan, run_ablate
from lightning_app.config import load_config, save_config
from tests.support.probe_ranks import probed_run
from tests.support.probe_tables import predictions


def test_trainings_differ_only_in_datasets_and_seeds(tmp_path: Path) -> None:
    config = load_config(Path("configs/demo.yaml"), ["ablation.seeds=[0,3]"])
    runs = plan(config, tmp_path)
    names = list(config.data.train)
    expected = [ALL, *(f"without {name}" for name in names), *(f"only {name}" for name in names)]
    assert [run.variant for run in runs[::2]] == expected
    assert {run.config.seed for run in runs} == {0, 3}
    assert len({run.folder for run in runs}) == len(runs)
    first, other = runs[0].config, runs[-1].config
    assert list(other.data.train) == [names[-1]]
    assert (first.probe.baselines, other.probe.baselines) == (["imagenet", "random"], [])
    other.data.train, other.probe.baselines = first.data.train, first.probe.baselines
    other.seed, other.data.seed, other.name, other.out = 0, 0, first.name, first.out
    assert other == first

    config.data.train = {name: config.data.train[name] for name in names[:2]}
    assert [run.variant for run in plan(config, tmp_path)[::2]] == expected[:3]
    config.data.train = {names[0]: config.data.train[names[0]]}
    with pytest.raises(ConfigError, match="two datasets below"):
        plan(config, tmp_path)


def test_variants_are_compared_on_the_same_subsets_and_test_patients() -> None:
    result = predictions()
    without = replace(result, predicted=result.predicted[[1, 1]])
    variants = {ALL: [result, result], "without glas": [without, without]}
    study = summarise(side_by_side(variants), 200, trainings=2)
    assert [curve.encoder for curve in study.curves] == [ALL, "without glas", "imagenet:x"]
    compared = {one.encoder: one for one in study.comparisons}
    assert compared["without glas"].area == compared["imagenet:x"].area
    (expected,) = summarise(result, 200).comparisons
    assert compared["without glas"].area.value == pytest.approx(-expected.area.value)
    assert compared["without glas"].verdict == -expected.verdict == -1
    table = table_of(Ablation((study,), (0, 1))).set_index("variant")
    assert table.loc["without glas", "difference"] == compared["without glas"].area.value
    for changed in (
        {"seeds": result.seeds + 1},
        {"truth": 1 - result.truth},
        {"sizes": (10, 30, 90)},
    ):
        with pytest.raises(ProbeError, match="were not tested on the same images"):
            side_by_side({ALL: [result], "other": [replace(result, **changed)]})


def test_the_interval_includes_the_spread_over_training_seeds() -> None:
    rng = np.random.default_rng(0)
    error = 1 + 0.01 * rng.normal(size=(1, 1, 12, 30))
    error += np.repeat([0.0, 0.5, 1.0], 4)[:, None]  # three trainings of four draws each
    parts = np.stack([error, np.ones_like(error)], axis=-1)
    alone, three = (resampled_scores(MSE, parts, 4000, 0, n)[0, :, 0, 0] for n in (1, 3))
    assert three.mean() == pytest.approx(1.5, abs=0.02)
    # A mean of three equally likely values 0, 1/2, 1 varies by sqrt(1/6) / sqrt(3).
    assert three.std() == pytest.approx(np.sqrt(1 / 18), rel=0.05)
    assert alone.std() < 0.6 * three.std()


def test_the_chart_names_variants_and_puts_better_ones_to_the_right() -> None:
    result = predictions(MSE)
    worse = replace(result, predicted=result.predicted[[1, 1]])
    study = summarise(side_by_side({ALL: [result], "without glas": [worse]}), 200)
    ablation = Ablation((study,), (0,))
    (axes,) = ablation_figure(ablation).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["without glas", "ImageNet"]
    left, right = axes.get_xlim()
    assert left > right, "a smaller error is to the right"
    assert "worse" in [text.get_text() for text in axes.texts]
    assert "One training per variant" in ablation.caution


@pytest.mark.slow
def test_an_ablation_skips_locked_trainings_and_continues_when_called_again(
    small_folder: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    place = small_folder("ablated")
    config = probed_run(place, "ablation.epochs=1", "ablation.steps_per_epoch=2")
    save_config(config, place / "recipe.yaml")
    folder = place / "ablation"
    other = folder / "without-nct_crc-seed0"
    other.mkdir(parents=True)
    lock = os.open(other / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with caplog.at_level("INFO"):
        run_ablate(place / "recipe.yaml", [], folder)
    assert "1 trainings run elsewhere" in caplog.text
    assert not (other / "done.json").exists()
    assert list(pd.read_csv(folder / "ablation.csv")["variant"]) == [
        ALL,
        "without glas",
        "random:test_convnext",
    ]
    os.close(lock)

    run_ablate(place / "recipe.yaml", [], folder)
    table = pd.read_csv(folder / "ablation.csv")
    assert list(table["variant"])[:3] == [ALL, "without nct_crc", "without glas"]
    assert {path.suffix for path in folder.glob("ablation.*")} == {".csv", ".png", ".svg"}
    runs = [json.loads(path.read_text())["run"] for path in sorted(folder.glob("*/done.json"))]
    assert len(runs) == 3 == len(list(folder.glob("*/*/encoder.safetensors")))
    with pytest.raises(ConfigError, match="began with other settings"):
        run_ablate(place / "recipe.yaml", ["ablation.epochs=2"], folder)
