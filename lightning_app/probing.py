"""Probing encoders on the unseen datasets, as a training run and the `probe` verb do it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from datamodules.base import PathologyDataModule
from evaluation.report import write_report
from evaluation.study import run_study
from lightning_app.config import Config
from lightning_app.run_folder import write_json
from models.export import FrozenEncoder, load_encoder


def probe_run(
    folder: Path,
    encoders: Sequence[FrozenEncoder],
    config: Config,
    unseen: Mapping[str, PathologyDataModule],
    origin: Mapping[str, Any],
    started: float,
) -> None:
    """Probe encoders on all unseen datasets; write results and report into a run's folder.

    Args:
        folder: the run's folder.
        encoders: the run's own first.
        config: the run's configuration.
        unseen: datasets to probe on, prepared.
        origin: provenance; the time that the run took is added.
        started: `time.monotonic()` at the start of the run.
    """
    if unseen:
        cache = Path(config.data.stores) / "features"
        run_study(encoders, list(unseen.values()), config.probe, folder, cache)
    seconds = round(time.monotonic() - started, 1)
    write_json(folder / "provenance.json", {**origin, "seconds": seconds})
    write_report(folder)


def with_baselines(encoders: Sequence[str], config: Config) -> list[str]:
    """The encoders, and the configured ones with ImageNet or random weights beside them."""
    beside = [f"{weights}:{config.model.encoder}" for weights in config.probe.baselines]
    return list(dict.fromkeys([*encoders, *beside]))


def load_named(spec: str, config: Config) -> FrozenEncoder:
    """Load an encoder; a run's encoder bears the name of the run's folder."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = config.data.image_size
    encoder = load_encoder(spec, image_size=size, device=device, seed=config.seed)
    if Path(spec).is_dir():
        encoder.name = Path(spec).resolve().name
    return encoder
