"""The verbs on a trained encoder: `probe`, `embed`, `export`, `report`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from datamodules.checks.leakage import Card, check_overlap, trained_on
from datamodules.core.errors import ConfigError
from datamodules.reader import DatasetReader
from datamodules.registry import build
from evaluation.report.leaderboard import compare
from evaluation.report.report import write_report
from evaluation.study import check_recipe
from lightning_app.commands.results import print_result
from lightning_app.commands.slides import embed_slides, slides_at
from lightning_app.config import Config, load_config, save_config
from lightning_app.loggers.build import wandb_logger
from lightning_app.loggers.wandb_results import finish, log_files, log_probes
from lightning_app.pretrain import make_ready
from lightning_app.publish.embed import embed
from lightning_app.publish.image_sources import ImageFolder, StorePatches
from lightning_app.run.folder import RunContext, create_run_folder, provenance
from lightning_app.run.probing import load_all, probe_run
from models.inference.export import WEIGHTS_FILE, export_encoder
from models.inference.frozen_encoder import FrozenEncoder
from models.inference.loading import load_encoder
from models.module import MultiTaskModule

PROBE_RECIPE = Path("configs/probe.yaml")
console = Console(soft_wrap=True, highlight=False, markup=False)


def run_probe(options: argparse.Namespace) -> int:
    """Probe the encoders that the command line names; return the exit code."""
    overrides = [item for item in options.items if "=" in item]
    specs = [item for item in options.items if "=" not in item]
    specs = specs or [str(_newest_run(Path(_probe_config(options.config, [], overrides).out)))]
    config = _probe_config(options.config, specs, overrides)
    print_result(probe_encoders(config, specs, options.out))
    return 0


def probe_encoders(config: Config, specs: list[str], out: Path | None = None) -> Path:
    """Probe encoders against baselines; return the folder of the results."""
    started = time.monotonic()
    if not config.data.unseen:
        raise ConfigError("data.unseen: names no dataset to probe on")
    unseen = {name: build(name, entry, config.data) for name, entry in config.data.unseen.items()}
    check_recipe(list(unseen.values()), config.probe)
    encoders, baseline = load_all(specs, config)
    trained = _training_data(encoders, config)
    check_overlap(trained, list(unseen.values()), config.probe.allow_overlap)
    make_ready(list(unseen.values()), config)
    folder = out or create_run_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.yaml").is_file():
        save_config(config, folder / "config.yaml")
    origin = _origin(folder, config, unseen, trained, encoders[0])
    probe_run(RunContext(config, folder, unseen, origin, started), encoders, baseline)
    loggers = wandb_logger(config, folder, origin, "probe")
    log_probes(loggers, folder)
    log_files(loggers, folder)
    finish(loggers)
    return folder


def _training_data(encoders: Sequence[FrozenEncoder], config: Config) -> list[Card]:
    """Return what the encoders were trained on, according to their exports and the configuration.

    The configuration counts as well, because an older export may lack the information.
    """
    cards: dict[str, Card] = {card.name: card for e in encoders for card in trained_on(e.facts)}
    for name, entry in config.data.train.items():
        cards[name] = build(name, entry, config.data)
    return list(cards.values())


def _origin(
    folder: Path,
    config: Config,
    unseen: Mapping[str, DatasetReader],
    trained: Sequence[Card],
    first: FrozenEncoder,
) -> dict[str, Any]:
    """Return the provenance of a study, merged into that of a training run in the same folder."""
    own = {"encoder": first.facts.get("timm_name") or first.name, "weights": first.name}
    fresh = provenance(config, {}, unseen, trained) | own  # the configuration may name another
    path = folder / "provenance.json"
    if not path.is_file():
        return fresh
    earlier = json.loads(path.read_text(encoding="utf-8"))
    return {
        **fresh,
        **earlier,
        "datasets": {**earlier["datasets"], **fresh["datasets"]},
        "synthetic": earlier["synthetic"] or fresh["synthetic"],
        "warnings": list(dict.fromkeys([*earlier.get("warnings", []), *fresh["warnings"]])),
    }


def _probe_config(path: Path | None, specs: list[str], overrides: list[str]) -> Config:
    """Load the named file, else the first run's own configuration, else the shipped recipe."""
    places = [Path(spec) for spec in specs if Path(spec).exists()]
    candidates = (p / "config.yaml" for place in places for p in (place, *place.parents[:2]))
    own = next((file for file in candidates if file.is_file()), PROBE_RECIPE)
    config = load_config(path or own, overrides)
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
    """Write the features of slides, of a folder of images or of a store; return the exit code."""
    slides = slides_at(options.images)
    if slides:
        return embed_slides(options, slides)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = load_encoder(options.encoder, options.size or None, device)
    source_class = StorePatches if options.images.suffix in (".h5", ".hdf5") else ImageFolder
    source = source_class(options.images, encoder.input_size)
    count = embed(encoder, source, options.out, options.batch_size)
    console.print(f"{count} embeddings of {options.images}: {options.out}")
    if isinstance(source, ImageFolder) and source.notes.counts:
        console.print(source.notes.line())
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Write a checkpoint's encoder, or a run's in the hub's layout; return the exit code."""
    if options.onnx or options.bridges:
        return _run_bridges(options)
    source = Path(options.source)
    if source.is_dir():
        from lightning_app.publish import hub  # slow to import

        if options.push:
            hub.check_name(options.push)
        folder = hub.write_hub_folder(source, options.out, options.push)
        console.print(f"encoder for timm and the hub: {folder}")
        if options.push:
            console.print(f"uploaded: {hub.push(folder, options.push, options.private)}")
        return 0
    if not source.is_file():
        raise ConfigError(f"{source}: no such checkpoint or run")
    if options.push:
        raise ConfigError(f"--push: {source} has no model card; name the folder of a finished run")
    module = MultiTaskModule.from_checkpoint(str(source))
    console.print(f"encoder: {export_encoder(module, options.out)}")
    return 0


def _run_bridges(options: argparse.Namespace) -> int:
    """Write the files for public benchmarks, or the encoder as ONNX."""
    from lightning_app.publish import bridges  # slow to import

    if options.push:
        raise ConfigError(
            "--push: uploads the layout of the hub only; leave --onnx or --bridges out"
        )
    if options.bridges:
        folder = bridges.write_bridges(Path(options.source), options.out)
        console.print(f"files for THUNDER, TRIDENT and kaiko eva: {folder}")
        return 0
    encoder = load_encoder(options.source)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / bridges.ONNX_FILE
    worst = bridges.write_onnx(encoder, path)
    console.print(f"ONNX, features equal to {worst:.1e} of their largest value: {path}")
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
