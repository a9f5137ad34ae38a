"""The `datasets` verb."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.disk_space import line_about
from datamodules.core.errors import ConfigError, UserError, one_line
from datamodules.display.cards import card
from datamodules.prepare import is_prepared, prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build, public_names
from lightning_app.commands.dataset_tables import print_list, print_room

console = Console(soft_wrap=True, highlight=False, markup=False)

# Imports of a single action are made there: listing datasets must not load matplotlib.


def run_datasets(options: argparse.Namespace) -> int:
    """Run an action on the named datasets; return the exit code."""
    if options.action == "list":
        data = _placed(DataConfig(), options)
        print_list(console, [build(name, DatasetConfig(), data) for name in public_names()])
        return 0
    if options.action == "unpack":
        return _run(_unpack, _named(options), options)
    datasets = _chosen(options)
    if options.action == "show" and len(datasets) > 1 and (options.out or Path()).suffix:
        raise ConfigError(f"--out {options.out}: one file for several datasets; name a folder")
    actions = {
        "show": _show,
        "prepare": _prepare,
        "verify": _verify,
        "forge": _forge,
    }
    if options.action == "download":
        print_room(console, datasets)
        return _download(datasets, options)
    codes = [_run(actions[options.action], dataset, options) for dataset in datasets]
    if options.action == "verify" and options.duplicates:
        codes.append(_duplicates(datasets))
    return max(codes)


def _run(
    action: Callable[[DatasetReader, argparse.Namespace], int],
    dataset: DatasetReader,
    options: argparse.Namespace,
) -> int:
    """Run an action on one dataset; its failure must not stop the others."""
    try:
        return action(dataset, options)
    except (UserError, OSError) as error:
        message = line_about(error) if isinstance(error, OSError) else str(error)
        if not message or (options.verbose and isinstance(error, OSError)):
            raise
        if not message.startswith(dataset.name):
            message = f"{dataset.name}: {message}"
        print(f"error: {message}", file=sys.stderr)
        return 2


def _placed(data: DataConfig, options: argparse.Namespace) -> DataConfig:
    """Return settings with the folders from the command line."""
    root, stores = options.root or data.root, options.stores or data.stores
    return replace(data, root=root, stores=stores)


def _chosen(options: argparse.Namespace) -> list[DatasetReader]:
    if options.recipe:
        from lightning_app.config import load_config

        data = _placed(load_config(options.recipe).data, options)
        entries = {**data.train, **data.unseen}
    else:
        data = _placed(DataConfig(), options)
        names = public_names() if options.all else options.names
        entries = {name: DatasetConfig() for name in names}
    if not entries:
        raise ConfigError(f"datasets {options.action}: name datasets, or give --all or --recipe")
    unknown = set(options.names) - set(entries)
    if unknown:
        raise ConfigError(f"{options.recipe}: no dataset '{min(unknown)}'")
    return [build(name, entries[name], data) for name in options.names or entries]


def _prepare(dataset: DatasetReader, options: argparse.Namespace) -> int:
    started = time.perf_counter()
    done = prepare(dataset, options.workers)
    seconds = time.perf_counter() - started
    state = f"written in {seconds:.1f} s" if done.written else "up to date"
    counts = done.notes.summary(done.records, done.count)
    console.print(f"{dataset.name}: {counts}, {state}: {done.path}")
    return 0


def _forge(dataset: DatasetReader, options: argparse.Namespace) -> int:
    from datamodules.synthetic.forge import forge

    written = forge(dataset, options.seed, options.images)
    state = "forged (synthetic tissue)" if written else "exists already, unchanged"
    console.print(f"{dataset.name}: {state}: {dataset.root}")
    return 0


def _download(datasets: Sequence[DatasetReader], options: argparse.Namespace) -> int:
    """Download datasets side by side; they share the number of files fetched at once."""
    from datamodules.download.dataset import download
    from datamodules.download.transfers import several

    with several() as together, ThreadPoolExecutor(len(datasets)) as pool:

        def work(dataset: DatasetReader, _: argparse.Namespace) -> int:
            for path in download(dataset, together=together):
                console.print(f"{dataset.name}: {path}")
            return 0

        folders = {dataset.root: dataset for dataset in datasets}  # several may share one
        try:
            return max(pool.map(lambda dataset: _run(work, dataset, options), folders.values()))
        except KeyboardInterrupt:
            together.stop()
            raise


def _unpack(dataset: DatasetReader, options: argparse.Namespace) -> int:
    from datamodules.download.dataset import install

    for path in install(dataset, [Path(name) for name in options.names[1:]]):
        console.print(f"{dataset.name}: {path}")
    return 0


def _named(options: argparse.Namespace) -> DatasetReader:
    """The one dataset whose archives follow its name."""
    if len(options.names) < 2:
        raise ConfigError("datasets unpack: name a dataset and the archives that you fetched")
    data = _placed(DataConfig(), options)
    return build(options.names[0], DatasetConfig(), data)


def _verify(dataset: DatasetReader, options: argparse.Namespace) -> int:
    from datamodules.checks.verify import verify

    report = verify(dataset, options.workers)
    for finding in report.findings:
        line = f"{dataset.name}: {finding.level}: {finding.where}: {finding.what}"
        console.print(one_line(line))
    console.print(f"{dataset.name}: {report.summary}")
    return 0 if report.ok else 2


def _duplicates(datasets: list[DatasetReader]) -> int:
    """Report copies within and across prepared datasets; they are no error."""
    from datamodules.checks.duplicates import find_duplicates

    for dataset in datasets:
        if not is_prepared(dataset):
            console.print(f"{dataset.name}: not prepared, therefore not compared")
    stores = {dataset.name: dataset.store for dataset in datasets if is_prepared(dataset)}
    console.print(find_duplicates(stores).text())
    return 0


def _show(dataset: DatasetReader, options: argparse.Namespace) -> int:
    console.print(card(type(dataset)))
    if not dataset.store_path.exists():
        console.print(f"not prepared: python -m lightning_app datasets prepare {dataset.name}")
        return 0
    from datamodules.display.contact_sheet import contact_sheet
    from datamodules.store.attributes import notes_of
    from datamodules.store.class_balance import balance_lines

    for line in [*balance_lines(dataset.store), *notes_of(dataset.store.attributes).lines()]:
        console.print(one_line(line))
    path = contact_sheet(dataset, _sheet(dataset, options.out))
    console.print(f"contact sheet: {path}")
    return 0


def _sheet(dataset: DatasetReader, out: Path | None) -> Path:
    """Return the path of a contact sheet: `out`, or a file of its own in the folder `out`."""
    name = f"{dataset.name}.png"
    if out is None:
        return Path(name)
    return out if out.suffix.lower() == ".png" else out / name
