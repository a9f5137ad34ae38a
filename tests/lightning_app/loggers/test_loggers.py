"""Loggers: what W&B sums up, how its runs are grouped, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from pytorch_lightning.loggers import Logger

from datamodules.core.errors import ConfigError
from lightning_app.cli import main
from lightning_app.config import load_config
from lightning_app.loggers.build import (
    EXTRAS,
    SummarisingLogger,
    best_of,
    build_loggers,
    check_loggers,
    wandb_logger,
)
from lightning_app.loggers.csv_logger import CsvLog
from lightning_app.loggers.wandb_results import finish
from tests.support.wandb_records import history, of_type, read_records, summary

ORIGIN = {"synthetic": False, "encoder": "resnet18", "commit": "0123456789ab"}
TENSORBOARD, MLFLOW = (
    all(importlib.util.find_spec(module) for module in EXTRAS[name])
    for name in ("tensorboard", "mlflow")
)


def test_the_summary_holds_the_best_and_the_last_value(tmp_path: Path) -> None:
    loggers = wandb_logger(load_config(None, ["wandb.mode=offline"]), tmp_path, ORIGIN, "probe")
    for step, value in enumerate((2.0, 1.0, 3.0, 2.5)):
        for name in ("train/glas/glands/loss", "val/glas/glands/dice", "val/x/y/mse", "lr"):
            loggers[0].log_metrics({name: value}, step)
    finish(loggers)
    records = read_records(tmp_path)
    values = summary(records)
    assert values["train/glas/glands/loss"] == {"min": 1.0, "last": 2.5}
    assert values["val/glas/glands/dice"] == {"max": 3.0, "last": 2.5}
    assert values["val/x/y/mse"] == {"min": 1.0, "last": 2.5}
    assert values["lr"] == 2.5
    (run,) = of_type(records, "run")
    assert (run["run_group"], run["job_type"]) == ("probe", "probe")
    assert {"real tissue", "resnet18", "git 0123456789ab"} == set(run["tags"])


def test_the_best_loss_or_error_is_the_smallest() -> None:
    assert [best_of(n) for n in ("train/loss", "val/a/b/mae", "val/summary")] == [
        "min",
        "min",
        "max",
    ]


def log_three_rows(folder: Path, *overrides: str) -> list[Logger]:
    """Log to all loggers of a configuration, close them and return them."""
    config = load_config(None, [f"out={folder.parent}", "wandb.mode=offline", *overrides])
    check_loggers(config)
    loggers = build_loggers(config, folder, ORIGIN)
    for logger in loggers:
        getattr(logger, "experiment", None)  # as Lightning does before the first row
        for step in range(3):
            row = {"train/loss": 1.0 / (step + 1), "gradients/cosine/a/b|c/d": 0.5}
            logger.log_metrics(row, step)
        logger.finalize("success")
    finish(loggers)
    return loggers


def test_a_run_logs_to_a_csv_file_and_wandb_unless_it_chooses_others(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert [type(one) for one in log_three_rows(folder)] == [CsvLog, SummarisingLogger]
    assert history(read_records(folder))["train/loss"] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 4
    other = tmp_path / "other"
    other.mkdir()
    assert [type(one) for one in log_three_rows(other, "loggers=[csv,csv]")] == [CsvLog]
    assert [path.name for path in other.iterdir()] == ["metrics.csv"]
    with pytest.raises(ConfigError, match=r"'excel', expected one of .*csv.*mlflow"):
        load_config(None, ["loggers=[excel]"])


def test_configurations_with_the_former_switch_for_tensorboard_are_read(tmp_path: Path) -> None:
    for switch, loggers in (("true", ["csv", "wandb", "tensorboard"]), ("false", ["csv", "wandb"])):
        (tmp_path / "old.yaml").write_text(f"tensorboard: {switch}")
        assert load_config(tmp_path / "old.yaml").loggers == loggers
        assert load_config(None, [f"tensorboard={switch}"]).loggers == loggers


@pytest.mark.skipif(not TENSORBOARD, reason="the extra tensorboard is not installed")
def test_tensorboard_gets_what_is_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_three_rows(tmp_path, "loggers=[tensorboard]")
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [event.step for event in read.Scalars("train/loss")] == [0, 1, 2]
    assert read.Scalars("train/loss")[1].value == 0.5


@pytest.mark.skipif(not MLFLOW, reason="the extra mlflow is not installed")
def test_mlflow_gets_rows_and_settings_and_a_resumed_run_is_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "run-1"
    folder.mkdir()
    chosen = "loggers=[mlflow]"
    log_three_rows(folder, chosen)
    log_three_rows(folder, chosen, "trainer.epochs=77")  # a resumed run may change it
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'histology-multitask'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run-1", "FINISHED")
    assert run.data.params["optim/encoder_lr"] == "0.0001"
    assert {"tissue": "real", "encoder": "resnet18"}.items() <= run.data.tags.items()
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted({(one.step, one.value) for one in losses}) == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert run.data.metrics["gradients/cosine/a/b - c/d"] == 0.5


@pytest.mark.skipif(not MLFLOW, reason="the extra mlflow is not installed")
def test_an_mlflow_that_does_not_answer_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        log_three_rows(tmp_path, "loggers=[mlflow]")


@pytest.mark.parametrize(
    ("name", "present", "package"),
    [("tensorboard", TENSORBOARD, "tensorboard"), ("mlflow", MLFLOW, "mlflow")],
)
def test_a_missing_extra_ends_the_program_with_its_mend_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    present: bool,
    package: str,
) -> None:
    if present:
        pytest.skip(f"the extra {name} is installed")
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(f"loggers: [csv, {name}]\ndata: {{train: {{glas: {{}}}}, forge: 8}}")
    assert main(["pretrain", "--config", "c.yaml"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: loggers: {name} needs the package {package}, which is not installed; run "
        f"`make install EXTRAS='offline-weights dev {name}'`, or leave {name} out"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
