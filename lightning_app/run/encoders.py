"""Probing encoders on the unseen datasets, as a training run and the `probe` verb do it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from datamodules.base import PathologyDataModule
from datamodules.core.atomic import write_json
from datamodules.core.errors import ConfigError, WeightsError
from datamodules.reader import DatasetReader
from evaluation.report.report import write_report
from evaluation.study import run_study
from lightning_app.config import Config
from models.inference.frozen_encoder import FrozenEncoder, load_encoder


def probe_run(
    folder: Path,
    encoders: Sequence[FrozenEncoder],
    config: Config,
    unseen: Mapping[str, DatasetReader],
    origin: Mapping[str, Any],
    started: float,
    baseline: str | None = None,
) -> None:
    """Probe encoders on all unseen datasets; write results and report into a run's folder.

    Args:
        folder: the run's folder.
        encoders: the run's own first.
        config: the run's configuration.
        unseen: datasets to probe on, prepared.
        origin: provenance; the time that the run took is added.
        started: `time.monotonic()` at the start of the run.
        baseline: name of the encoder that differences are taken to.
    """
    if unseen:
        cache = feature_cache(config)
        probed = [PathologyDataModule(reader=reader) for reader in unseen.values()]
        run_study(encoders, probed, config.probe, folder, cache, baseline)
    seconds = round(time.monotonic() - started, 1)
    write_json(folder / "provenance.json", {**origin, "seconds": seconds})
    write_report(folder)


def feature_cache(config: Config) -> Path:
    """Folder of cached features, which all runs on the same stores share."""
    return Path(config.data.stores) / "features"


def baseline_specs(config: Config, architecture: str) -> list[str]:
    """The configured baselines: "imagenet" and "random" are weights of this timm model."""
    return [
        f"{spec}:{architecture}" if spec in ("imagenet", "random") else spec
        for spec in config.probe.baselines
    ]


def load_all(specs: Sequence[str], config: Config) -> tuple[list[FrozenEncoder], str | None]:
    """Load encoders and the baselines beside them, which have the architecture of the first.

    Returns:
        All of them, and the name of the baseline that differences are taken to: the first one
        that is configured.

    Raises:
        ConfigError: two encoders would have the same name in all tables.
        WeightsError: one cannot be had.
        EncoderError: timm does not know one.
    """
    loaded = {spec: load_named(spec, config) for spec in dict.fromkeys(specs)}
    architecture = str(next(iter(loaded.values())).facts["timm_name"])
    beside = load_baselines(config, architecture)
    loaded |= {spec: encoder for spec, encoder in beside.items() if spec not in loaded}
    names = [encoder.name for encoder in loaded.values()]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two encoders are called {name}: rename the folder or file of one")
    reference = next(iter(beside.values()), None)
    return list(loaded.values()), reference.name if reference else None


def load_baselines(config: Config, architecture: str) -> dict[str, FrozenEncoder]:
    """The configured baselines by what names them, the reference first."""
    return {spec: load_named(spec, config) for spec in baseline_specs(config, architecture)}


def check_baselines(config: Config) -> None:
    """Find out before a long training run whether its baselines can be had.

    Raises:
        WeightsError: one cannot.
        EncoderError: timm does not know one.
    """
    for spec in baseline_specs(config, config.model.encoder):
        if not spec.startswith("random:"):
            try:
                load_named(spec, config)
            except WeightsError as error:
                raise WeightsError(
                    f"probe.baselines: {error}; name others, as in "
                    f"probe.baselines=[weights.safetensors:{config.model.encoder},random]"
                ) from error


def load_named(spec: str, config: Config) -> FrozenEncoder:
    """Load an encoder for the configured image size, where it computes best."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_encoder(spec, config.data.image_size, device, config.seed)
