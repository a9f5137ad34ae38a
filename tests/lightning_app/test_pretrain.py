"""The whole pipeline in small, from no data to a report, as a user calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import safetensors.torch
import timm
import torch

from datamodules.core.records import SPLITS
from datamodules.multitask import MultiTaskDataModule
from lightning_app.cli import main
from lightning_app.config import load_config
from models.module import MultiTaskModule
from tests.support.wandb_records import artifacts_of, history, of_type, read_records, summary

SMALL = [
    "data.forge=12",
    "data.image_size=64",
    "data.workers=0",
    "data.val_limit=6",
    "data.batch_size=2",
    "model.encoder=test_convnext",
    "model.weights=random",
    "model.neck_channels=16",
    "trainer.epochs=2",
    "trainer.steps_per_epoch=3",
    "trainer.log_every=1",
    "trainer.panel_every=1",
    "trainer.accelerator=cpu",
    "probe.baselines=[random]",
    "probe.sizes=[4,0]",
    "probe.repeats=2",
    "probe.trees=10",
    "probe.bootstrap=50",
    "probe.map_points=40",
    "probe.jobs=1",
]


@pytest.fixture(scope="module")
def place(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder that has the recipes."""
    folder = tmp_path_factory.mktemp("machine")
    (folder / "configs").symlink_to(repository / "configs")
    return folder


@pytest.fixture(scope="module")
def demo(repository: Path, place: Path) -> tuple[Path, str]:
    """A demo on a machine without data, as a user starts it: its run's folder and its output."""
    environment = {**os.environ, "PYTHONPATH": str(repository), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "lightning_app", "pretrain", *SMALL]
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert not re.search(
        r"[0-9]/[0-9]+ (steps|batches|images|probes)|\x1b", done.stderr
    )  # no minute
    (folder,) = (place / "runs").iterdir()
    return folder, done.stdout


@pytest.mark.slow
def test_without_data_the_demo_runs_and_labels_its_tissue_as_synthetic(
    demo: tuple[Path, str],
) -> None:
    folder, printed = demo
    assert printed.index("SYNTHETIC") < printed.index("epoch 1/2")
    assert str(folder.relative_to(folder.parent.parent) / "report.html") in printed
    assert "idc: F1" in printed and "breastpathq: MSE" in printed
    assert json.loads((folder / "provenance.json").read_text())["synthetic"] is True
    assert "SYNTHETIC" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_run_folder_holds_all_files_that_the_readme_lists(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    for name in (
        "config.yaml",
        "checkpoints/last.ckpt",
        "encoder.safetensors",
        "encoder.json",
        "final_scores.json",
        "MODEL_CARD.md",
        "metrics.csv",
        "probes.csv",
        "learning_curves.png",
        "learning_curves.svg",
        "report.html",
        "report.json",
        "provenance.json",
        "MODEL_CARD.md",
        "figures/map-all.png",
        "neighbours/idc-1-this_encoder.png",
        "neighbours/idc-2-random_weights.png",
        "figures/learning-curve-idc.png",
        "figures/learning-curve-idc.svg",
        "panels/glas-glands.png",
        "panels/midogpp-mitosis.png",
        "panels/lc25000-histology.png",
        "panels/lc25000-histology-confusion.png",
    ):
        assert (folder / name).is_file(), name
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["train/glas/glands/loss"].notna().sum() == 6  # one row per optimizer step
    assert metrics["val/summary"].notna().sum() == 2  # one per epoch
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True, map_location="cpu")
    assert saved["global_step"] == 6


@pytest.mark.slow
def test_final_weights_are_scored_on_published_test_images_or_else_on_validation(
    demo: tuple[Path, str],
) -> None:
    folder, _ = demo
    final = json.loads((folder / "final_scores.json").read_text())
    config = load_config(folder / "config.yaml")
    config.data.root, config.data.stores = (
        str(folder.parent.parent / path) for path in (config.data.root, config.data.stores)
    )
    stream = MultiTaskDataModule(config.data)
    for name, dataset in stream.datasets.items():
        published = "test" in {SPLITS[number] for number in dataset.store.split}
        assert final["splits"][name] == ("test" if published else "val")
    assert set(final["splits"].values()) == {"test", "val"}
    assert any(key.endswith("/map") for key in final["scores"])

    module = MultiTaskModule.from_checkpoint(str(folder / "checkpoints/last.ckpt"))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    (again,) = trainer.test(module, datamodule=stream, verbose=False)
    expected = {f"test/{key}": value for key, value in final["scores"].items()}
    expected["test/summary"] = final["summary"]
    assert again == pytest.approx(expected, abs=1e-4)
    logged = pd.read_csv(folder / "metrics.csv").filter(like="test/").dropna(how="all")
    assert logged.to_dict("records") == [pytest.approx(expected, abs=1e-6)]
    facts = json.loads((folder / "encoder.json").read_text())
    assert (facts["scores"], facts["scored_on"]) == (final["scores"], final["splits"])


@pytest.mark.slow
def test_the_offline_wandb_run_holds_all_metrics_pictures_and_files(
    demo: tuple[Path, str],
) -> None:
    folder, _ = demo
    records = read_records(folder)
    (started,) = of_type(records, "run")
    assert {"demo", "synthetic tissue", "test_convnext"} <= set(started["tags"])
    origin = json.loads((folder / "provenance.json").read_text())
    assert f"git {origin['commit']}" in started["tags"]
    assert (started["run_group"], started["job_type"]) == ("pretrain", "pretrain")
    config = started["config"]["update"]
    assert config["trainer"]["steps_per_epoch"] == 3
    assert config["provenance"]["datasets"]["glas"] == origin["datasets"]["glas"]
    assert config["provenance"]["versions"] == origin["versions"]

    logged = history(records)
    tasks = {
        f"{name}/{task}": kind
        for name, facts in origin["datasets"].items()
        if facts["role"] == "train"
        for task, kind in facts["tasks"].items()
    }
    metric = {"classification": "f1_macro", "segmentation": "dice", "detection": "f1_best"}
    layer = {"segmentation": "all_masks", "detection": "all_boxes"}
    for task, kind in tasks.items():
        assert len(logged[f"train/{task}/loss"]) == 6, task
        assert len(logged[f"val/{task}/{metric[kind]}"]) == 2, task
        assert logged[f"panels/{task}._type"] == ["images/separated"] * 2, task
        if kind in layer:
            first, _ = logged[f"panels/{task}.{layer[kind]}"]
            assert {"truth", "prediction"} == set(first[0]), task
    assert len(logged["lr-AdamW/pg1"]) == 6
    assert min(logged["speed/images_per_second"]) > 0
    sorts = [task for task, kind in tasks.items() if kind == "classification"]
    for chart in ("confusion", "precision_recall"):
        assert {f"{chart}/{task}_table.nrows" for task in sorts} <= set(logged)

    values = summary(records)
    for task, kind in tasks.items():
        losses, scores = logged[f"train/{task}/loss"], logged[f"val/{task}/{metric[kind]}"]
        assert values[f"train/{task}/loss"] == {"min": min(losses), "last": losses[-1]}
        assert values[f"val/{task}/{metric[kind]}"] == {"max": max(scores), "last": scores[-1]}

    probes = pd.read_csv(folder / "probes.csv")
    assert logged["probes.nrows"] == [len(probes)]
    studies = json.loads((folder / "report.json").read_text())["probes"]
    for study in studies:
        name = study["dataset"]
        assert f"learning_curves/{name}_table.nrows" in logged
        assert {f"{part}/{name}._type" for part in ("curves", "maps")} <= set(logged)
        assert f"neighbours/{name}-1-this_encoder._type" in logged
        for curve in study["curves"]:
            for labels, score in zip(study["labels"], curve["scores"], strict=True):
                key = f"probe/{name}/{curve['encoder']}/{labels:g}"
                assert values[key] == pytest.approx(score["value"]), key
    scores = sum(len(study["curves"]) * len(study["sizes"]) for study in studies)
    assert logged["probe_scores.nrows"] == [scores]
    files = artifacts_of(records)
    assert {"encoder.safetensors", "encoder.json", "MODEL_CARD.md"} == files["encoder"]
    assert {"report.html", "report.json", "learning_curves.svg"} <= files["report"]


@pytest.mark.slow
def test_plain_timm_loads_the_exported_encoder(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    facts = json.loads((folder / "encoder.json").read_text())
    encoder = timm.create_model(facts["timm_name"], num_classes=0, **facts["model_kwargs"])
    encoder.load_state_dict(safetensors.torch.load_file(folder / "encoder.safetensors"))
    assert encoder.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, facts["embedding_dim"])


@pytest.mark.slow
def test_the_exported_weights_are_the_averaged_ones(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    exported = safetensors.torch.load_file(folder / "encoder.safetensors")
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True, map_location="cpu")
    prefix = "model.encoder.model."
    for name, value in exported.items():
        assert torch.equal(value, saved["state_dict"][prefix + name]), name
    last = saved["current_model_state"]
    assert not all(torch.equal(value, last[prefix + name]) for name, value in exported.items())


@pytest.mark.slow
def test_every_encoder_is_probed_on_every_unseen_dataset_with_every_size_and_repeat(
    demo: tuple[Path, str],
) -> None:
    folder, _ = demo
    probes = pd.read_csv(folder / "probes.csv")
    forests = probes[probes["predictor"] == "forest"]
    counts = forests.groupby(["dataset", "encoder", "size", "repeat"]).size().unstack("repeat")
    assert set(forests["dataset"]) == {"idc", "breakhis", "breastpathq"}
    assert set(forests["encoder"]) == {folder.name, "random:test_convnext"}
    assert counts.notna().all().all() and set(counts.columns) == {0, 1}
    assert probes["value"].notna().all()


@pytest.mark.slow
def test_a_finished_run_can_be_probed_embedded_exported_and_reported_again(
    place: Path,
    demo: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = demo
    monkeypatch.chdir(place)
    checkpoint = folder / "checkpoints/last.ckpt"
    (place / "bare.safetensors").write_bytes((folder / "encoder.safetensors").read_bytes())
    bare = "bare.safetensors:test_convnext"
    assert main(["probe", str(folder), str(checkpoint), bare, "--out", "again"]) == 0
    assert "idc: F1" in capsys.readouterr().out
    same = ["dataset", "fold", "size", "n_train", "repeat", "seed", "value"]
    old, new = (
        {name: rows[same].reset_index(drop=True) for name, rows in table.groupby("encoder")}
        for table in (pd.read_csv(f / "probes.csv") for f in (folder, place / "again"))
    )
    copies = {folder.name, f"{folder.name}-last", "bare"}
    assert set(new) == {*copies, "random:test_convnext"}
    for name, rows in new.items():
        pd.testing.assert_frame_equal(rows, old[folder.name if name in copies else name])
    origin = json.loads((place / "again/provenance.json").read_text())
    assert (origin["encoder"], origin["weights"]) == ("test_convnext", folder.name)

    records = read_records(place / "again")
    (started,) = of_type(records, "run")
    assert (started["run_group"], started["job_type"]) == ("probe", "probe")
    assert history(records)["probes.nrows"] == [len(pd.read_csv(place / "again/probes.csv"))]
    assert set(artifacts_of(records)) >= {"report"}

    images = place / "data/demo/published/breakhis"
    assert main(["embed", str(folder), str(images), "--out", "f.h5", "--size", "64"]) == 0
    with h5py.File(place / "f.h5") as file:
        assert len(file["features"]) == len(file["paths"]) == len(list(images.rglob("*.png")))
        assert np.isfinite(file["features"][:]).all()

    assert main(["export", str(checkpoint), "--out", "exported"]) == 0
    first, second = (
        safetensors.torch.load_file(f / "encoder.safetensors") for f in (folder, place / "exported")
    )
    assert all(torch.equal(value, second[key]) for key, value in first.items())

    assert main(["report", str(folder), "again", "--out", "board.html"]) == 0
    assert folder.name in (place / "board.html").read_text()


@pytest.mark.slow
def test_a_trainer_that_cannot_be_built_leaves_no_run_folder(
    place: Path,
    demo: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    before = sorted((place / "runs").iterdir())
    assert main(["pretrain", *SMALL, "trainer.devices=0"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: trainer: ") and "devices=0" in error
    assert sorted((place / "runs").iterdir()) == before


def test_bad_input_gives_one_line_and_exit_code_2(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "configs").symlink_to(repository / "configs")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    cases = {
        ("pretrain", "data.root=empty", "model.encoder=tf_efficientnet_lite0"): [
            "nct_crc",
            "empty/nct_crc",
        ],
        ("pretrain", "--config", "configs/demo.yaml", "trainer.epoch=3"): [
            "trainer.epoch",
            "epochs",
        ],
        ("pretrain", "--config", "absent.yaml"): ["absent.yaml"],
        ("datasets", "prepare", "glass", "--root", "empty"): ["glass", "glas"],
        ("datasets", "prepare", "glas", "--root", "empty"): ["glas", "empty/glas"],
        ("probe", "nowhere", "--config", "configs/demo.yaml", *SMALL): ["nowhere"],
        ("probe",): ["no run with an encoder.safetensors", "make pretrain"],
        ("ablate", "--config", "configs/probe.yaml"): ["two datasets below data.train"],
        ("report", "empty"): ["empty", "provenance.json"],
        ("export", "absent.ckpt", "--out", "x"): ["absent.ckpt"],
    }
    for arguments, expected in cases.items():
        assert main(arguments) == 2, arguments
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ")
        for part in expected:
            assert part in line, (arguments, line)
    assert not (tmp_path / "runs").exists()
