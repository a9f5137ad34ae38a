"""The verbs on a finished encoder: `probe`, `embed`, `export`, `report`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console

from datamodules.errors import ConfigError
from datamodules.leakage import check_overlap
from datamodules.registry import build
from evaluation.report import compare, write_report
from lightning_app.config import Config, load_config
from lightning_app.embedding import embed_folder
from lightning_app.probing import load_named, probe_run, with_baselines
from lightning_app.run_folder import create_run_folder, provenance
from lightning_app.summary import print_result
from lightning_app.train import make_ready
from models.export import WEIGHTS_FILE, export_encoder
from models.multitask import MultiTaskModule

PROBE_RECIPE = Path("configs/probe.yaml")
console = Console(soft_wrap=True, highlight=False)


def run_probe(options: argparse.Namespace) -> int:
    """Probe encoders against baselines; return the exit code."""
    started = time.monotonic()
    overrides = [item for item in options.items if "=" in item]
    encoders = [item for item in options.items if "=" not in item]
    config = _probe_config(options.config, encoders, overrides)
    encoders = encoders or [str(_newest_run(Path(config.out)))]
    if not config.data.unseen:
        raise ConfigError("data.unseen: names no dataset to probe on")
    unseen = {name: build(name, entry, config.data) for name, entry in config.data.unseen.items()}
    trained = {name: build(name, entry, config.data) for name, entry in config.data.train.items()}
    check_overlap(list(trained.values()), list(unseen.values()), config.probe.allow_overlap)
    loaded = [load_named(spec, config) for spec in with_baselines(encoders, config)]
    make_ready(list(unseen.values()), config)
    folder = options.out or create_run_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    origin = provenance(config, {}, unseen)
    probe_run(folder, loaded, config, unseen, origin, started)
    print_result(folder)
    return 0


def _probe_config(path: Path | None, encoders: list[str], overrides: list[str]) -> Config:
    """The named file, else the first run's own configuration, else the shipped recipe."""
    own = [Path(spec) / "config.yaml" for spec in encoders if Path(spec).is_dir()]
    found = [file for file in own if file.is_file()]
    config = load_config(path or (found[0] if found else PROBE_RECIPE), overrides)
    config.name = "probe"
    return config


def _newest_run(out: Path) -> Path:
    runs = [path.parent for path in out.glob(f"*/{WEIGHTS_FILE}")]
    if not runs:
        raise ConfigError(
            f"{out}: no run with an {WEIGHTS_FILE}; run `make pretrain` first, or name encoders "
            "(a run's folder, imagenet:resnet50, ...)"
        )
    return max(runs, key=lambda path: path.stat().st_mtime)


def run_embed(options: argparse.Namespace) -> int:
    """Write the features of a folder of images; return the exit code."""
    config = Config()
    if options.size:
        config.data.image_size = options.size
    encoder = load_named(options.encoder, config)
    count = embed_folder(
        encoder, options.images, options.out, config.data.image_size, options.batch_size
    )
    console.print(f"{count} embeddings of {options.images}: {options.out}")
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Write a checkpoint's encoder; return the exit code."""
    if not options.checkpoint.is_file():
        raise ConfigError(f"{options.checkpoint}: no such checkpoint")
    module = MultiTaskModule.from_checkpoint(str(options.checkpoint))
    console.print(f"encoder: {export_encoder(module, options.out)}")
    return 0


def run_report(options: argparse.Namespace) -> int:
    """Write the report of one run again, or a leaderboard of several; return the exit code."""
    for run in options.runs:
        if not (run / "provenance.json").is_file():
            raise ConfigError(f"{run}: not the folder of a run (it holds no provenance.json)")
    if len(options.runs) == 1:
        console.print(f"report: {write_report(options.runs[0])}")
    else:
        console.print(f"leaderboard: {compare(options.runs, options.out)}")
    return 0
