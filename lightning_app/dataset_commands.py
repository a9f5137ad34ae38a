"""The `datasets` verb."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from datamodules.balance import balance_lines
from datamodules.base import PathologyDataModule
from datamodules.cards import card, write_readme
from datamodules.download import download
from datamodules.duplicates import find_duplicates
from datamodules.errors import ConfigError
from datamodules.forge import forge
from datamodules.gallery import contact_sheet
from datamodules.prepare import is_prepared, prepare
from datamodules.registry import build, public_names
from datamodules.settings import DataConfig, DatasetConfig
from datamodules.verify import verify

console = Console(soft_wrap=True, highlight=False)


def run_datasets(options: argparse.Namespace) -> int:
    """Carry out an action on the datasets that were named; return the exit code."""
    if options.action == "readme":
        console.print(f"wrote {write_readme()}")
        return 0
    if options.action == "list":
        _print_list(DataConfig(root=options.root, stores=_stores(options)))
        return 0
    datasets = _chosen(options)
    action = {
        "show": _show,
        "download": _download,
        "prepare": _prepare,
        "verify": _verify,
        "forge": _forge,
    }[options.action]
    codes = [action(dataset, options) for dataset in datasets]
    if options.action == "verify" and options.duplicates:
        codes.append(_duplicates(datasets))
    return max(codes)


def _stores(options: argparse.Namespace) -> str:
    return options.stores or str(Path(options.root) / "stores")


def _chosen(options: argparse.Namespace) -> list[PathologyDataModule]:
    names = public_names() if options.all else options.names
    if not names:
        raise ConfigError(f"datasets {options.action}: name datasets, or give --all")
    data = DataConfig(root=options.root, stores=_stores(options))
    return [build(name, DatasetConfig(), data) for name in names]


def _prepare(dataset: PathologyDataModule, options: argparse.Namespace) -> int:
    started = time.perf_counter()
    done = prepare(dataset, options.workers)
    seconds = time.perf_counter() - started
    state = f"written in {seconds:.1f} s" if done.written else "up to date"
    console.print(f"{dataset.name}: {done.count} patches, {state}: {done.path}")
    return 0


def _forge(dataset: PathologyDataModule, options: argparse.Namespace) -> int:
    written = forge(dataset, options.seed, options.images)
    state = "forged (synthetic tissue)" if written else "already there, left as it is"
    console.print(f"{dataset.name}: {state}: {dataset.root}")
    return 0


def _download(dataset: PathologyDataModule, options: argparse.Namespace) -> int:
    for path in download(dataset):
        console.print(f"{dataset.name}: {path}")
    return 0


def _verify(dataset: PathologyDataModule, options: argparse.Namespace) -> int:
    report = verify(dataset)
    for finding in report.findings:
        console.print(f"{dataset.name}: {finding.level}: {finding.where}: {finding.what}")
    console.print(f"{dataset.name}: {report.summary}")
    return 0 if report.ok else 2


def _duplicates(datasets: list[PathologyDataModule]) -> int:
    pairs = find_duplicates({dataset.name: dataset.store for dataset in datasets})
    for pair in pairs:
        console.print(str(pair))
    console.print(f"{len(pairs)} pairs of copies in {len(datasets)} datasets")
    return 0


def _show(dataset: PathologyDataModule, options: argparse.Namespace) -> int:
    console.print(card(type(dataset)), markup=False)
    if not is_prepared(dataset):
        console.print(f"not prepared: python -m lightning_app datasets prepare {dataset.name}")
        return 0
    for line in balance_lines(dataset.store):
        console.print(line, markup=False)
    path = options.out or Path(f"{dataset.name}.png")
    contact_sheet(dataset, path)
    console.print(f"contact sheet: {path}")
    return 0


def _print_list(data: DataConfig) -> None:
    table = Table()
    for heading in ("name", "tasks", "organs", "um/px", "licence", "present", "prepared", "images"):
        table.add_column(heading)
    for name in public_names():
        dataset = build(name, DatasetConfig(), data)
        ready = is_prepared(dataset)
        table.add_row(
            name,
            ", ".join(sorted({str(task.kind) for task in dataset.tasks})),
            ", ".join(dataset.organs),
            f"{dataset.mpp:g}" if dataset.mpp else "unknown",
            dataset.licence,
            "yes" if dataset.root.is_dir() else "",
            "yes" if ready else "",
            f"{len(dataset.store)}" if ready else "",
        )
    console.print(table)
