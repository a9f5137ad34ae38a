"""Probing encoders on the unseen datasets, for a training run and for the `probe` verb."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from datamodules.base import PathologyDataModule
from datamodules.core.atomic import write_json
from datamodules.core.errors import ConfigError, WeightsError
from evaluation.report.report import write_report
from evaluation.study import run_study
from lightning_app.config import Config
from lightning_app.run.folder import RunContext
from lightning_app.run.report_looks import record_look
from models.inference.frozen_encoder import FrozenEncoder
from models.inference.loading import load_encoder


def probe_run(run: RunContext, encoders: Sequence[FrozenEncoder], baseline: str | None) -> None:
    """Probe encoders on all unseen datasets; write results, provenance and report.

    Args:
        run: the run, whose folder receives the results.
        encoders: the run's own encoder first.
        baseline: name of the encoder that the others are compared with.
    """
    folder, config, origin = run.folder, run.config, dict(run.origin)
    if run.unseen:
        origin["role"] = config.probe.role
        if config.probe.role == "report":
            stores = Path(config.data.stores)
            origin["report_looks"] = record_look(stores, folder, encoders, run.unseen)
        datasets = [PathologyDataModule(reader=reader) for reader in run.unseen.values()]
        run_study(encoders, datasets, config.probe, folder, feature_cache(config), baseline)
    seconds = round(time.monotonic() - run.started, 1)
    write_json(folder / "provenance.json", {**origin, "seconds": seconds})
    write_report(folder)


def feature_cache(config: Config) -> Path:
    """Return the folder of cached features, shared by all runs on the same stores."""
    return Path(config.data.stores) / "features"


def load_all(specs: Sequence[str], config: Config) -> tuple[list[FrozenEncoder], str | None]:
    """Load encoders, and the configured baselines with the architecture of the first.

    Returns:
        All encoders, and the name of the first baseline, which the others are compared with.

    Raises:
        ConfigError: two encoders would have the same name in all tables.
        WeightsError: weights are not available.
        EncoderError: timm does not know an encoder.
    """
    encoders = {spec: _load(spec, config) for spec in dict.fromkeys(specs)}
    own = [encoder for encoder in encoders.values() if "preset" not in encoder.facts]
    if not own and {"imagenet", "random"} & set(config.probe.baselines):
        raise ConfigError(
            "probe.baselines: imagenet and random have the architecture of a run, and all encoders "
            "are presets; name one, as in probe.baselines=[imagenet:resnet50,random:resnet50], or "
            "set probe.baselines=[]"
        )
    architecture = str(own[0].facts["timm_name"]) if own else ""
    baselines = load_baselines(config, architecture)
    encoders |= {spec: baselines[spec] for spec in baselines if spec not in encoders}
    names = [encoder.name for encoder in encoders.values()]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two encoders are called {name}: rename the folder or file of one")
        # Spreadsheets take a cell that begins with another sign for a formula.
        if not re.match(r"\w", name) or not name.isprintable():
            raise ConfigError(
                f"encoder {name!r}: let the name of its folder or file begin with a letter or "
                "digit and hold no control characters; tables name it"
            )
    reference = next(iter(baselines.values()), None)
    return list(encoders.values()), reference.name if reference else None


def load_baselines(config: Config, architecture: str) -> dict[str, FrozenEncoder]:
    """Load the configured baselines, by specification; the reference comes first."""
    return {spec: _load(spec, config) for spec in _baseline_specs(config, architecture)}


def check_baselines(config: Config) -> None:
    """Check before a long training run that its baselines are available.

    Raises:
        WeightsError: weights are not available.
        EncoderError: timm does not know an encoder.
    """
    for spec in _baseline_specs(config, config.model.encoder):
        if not spec.startswith("random:"):
            try:
                _load(spec, config)
            except WeightsError as error:
                raise WeightsError(
                    f"probe.baselines: {error}; name others, as in "
                    f"probe.baselines=[weights.safetensors:{config.model.encoder},random]"
                ) from error


def _baseline_specs(config: Config, architecture: str) -> list[str]:
    """Return the baselines; "imagenet" and "random" stand for weights of this timm model."""
    return [
        f"{spec}:{architecture}" if spec in ("imagenet", "random") else spec
        for spec in config.probe.baselines
    ]


def _load(spec: str, config: Config) -> FrozenEncoder:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_encoder(spec, config.data.image_size, device, config.seed)
