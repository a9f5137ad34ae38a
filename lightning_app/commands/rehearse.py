"""The `rehearse` verb: whether a recipe will run on this machine, before its data are there.

First all that needs no data is checked: settings, probes, shared sources, weights, disk space. Then
every dataset is forged in its publisher's layout, and the recipe runs on these copies for two steps
and a tiny probe, with its own encoder, tasks and settings otherwise; on a GPU with its batch size.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich.console import Console

from datamodules.checks.leakage import check_overlap
from datamodules.config import DatasetConfig
from datamodules.core.cores import available_cores
from datamodules.core.disk_space import free_space, size_text
from datamodules.core.errors import ConfigError, UserError
from datamodules.download.disk_space import total_space
from datamodules.reader import DatasetReader
from datamodules.registry import build
from evaluation.study import check_recipe
from lightning_app.commands.doctor import GIB, Check, Level, show
from lightning_app.commands.encoders import probe_encoders
from lightning_app.commands.recipes import RECIPE
from lightning_app.config import Config, load_config
from lightning_app.pretrain import assemble, carry_out
from lightning_app.run.probing import check_baselines
from lightning_app.training.trainer import on_gpu
from models.network.encoder import Encoder

FORGED = 12  # synthetic images per dataset
STEPS, GPU_STEPS = 2, 10  # a GPU's first steps choose kernels
FORGED_GROUP = r"^(patient\d+)"  # in the file names of forged own data
LOADER_RATE = 300  # crops per second and process; measured: 200 to 450 (configs/pretrain.yaml)


def run_rehearse(path: Path | None, overrides: list[str], out: Path | None) -> int:
    """Rehearse a recipe; return 0 if it will run on this machine, 2 if not.

    Args:
        path: YAML file; None stands for the real recipe.
        overrides: settings, as for `pretrain`.
        out: folder that keeps what the rehearsal writes; None removes it.
    """
    started = time.monotonic()
    console = Console(soft_wrap=True, highlight=False, markup=False)
    recipe, config = path or RECIPE, load_config(path or RECIPE, overrides)
    checks = list(checks_without_data(config))
    show(checks, console)
    wrong = sum(check.level is Level.ERROR for check in checks)
    if wrong:
        console.print(
            f"{recipe} will not run: {wrong} of its settings must be changed", markup=False
        )
        return 2
    kept: AbstractContextManager[str] = (
        nullcontext(str(out)) if out else tempfile.TemporaryDirectory(prefix="rehearsal-")
    )
    with kept as folder:
        show(list(_rehearsed(config, shortened(config, Path(folder)))), console)
    room = "" if all(check.level is Level.OK for check in checks) else "; mind the warnings above"
    seconds = time.monotonic() - started
    console.print(
        f"{recipe} runs on this machine (rehearsed in {seconds:.0f} s){room}", markup=False
    )
    return 0


def checks_without_data(config: Config) -> Iterator[Check]:
    """Check what needs no data: all faults of a recipe at once, each as one line."""
    data = config.data
    train, unseen = ([build(n, e, data) for n, e in d.items()] for d in (data.train, data.unseen))
    datasets = [*train, *unseen]

    def encoder() -> None:
        with torch.random.fork_rng(devices=[]):
            Encoder(config.model, data.image_size)

    tests: dict[str, tuple[bool, Callable[[], object]]] = {
        "sources": (
            bool(train and unseen),
            lambda: check_overlap(train, unseen, config.probe.allow_overlap),
        ),
        "probes": (bool(unseen), lambda: check_recipe(unseen, config.probe)),
        "encoder": (bool(train), encoder),
        "baselines": (bool(unseen), lambda: check_baselines(config)),
        "copies": (True, lambda: _check_copies(datasets)),
    }
    for name, (applies, test) in tests.items():
        if applies:
            try:
                test()
                yield Check(Level.OK, name, "fit")
            except UserError as error:
                yield Check(Level.ERROR, name, str(error))
    if not data.forge:
        yield from _data(datasets)


def _check_copies(datasets: Sequence[DatasetReader]) -> None:
    for dataset in datasets:
        if type(dataset).forge.__func__ is DatasetReader.forge.__func__:  # type: ignore[attr-defined]
            raise ConfigError(f"{dataset.name}: its reader forges no copies to rehearse with")


def _data(datasets: Sequence[DatasetReader]) -> Iterator[Check]:
    """What is to be fetched, by program and by hand, and whether it fits on the disks."""
    each, needed = total_space(datasets, ask=False)
    first = zip(reversed(datasets), reversed(each), strict=True)  # of those that share a folder
    rooms = list({dataset.root: room for dataset, room in first}.values())[::-1]
    hand = [room.name for room in rooms if room.by_hand]
    fetched = sum(room.files > 0 and not room.by_hand for room in rooms)
    size = size_text(sum(room.fetch for room in rooms))
    text = f"{len(rooms) - len(hand) - fetched} of {len(rooms)} datasets are there, {fetched} come "
    text += f"by `make data` ({size} as far as published)"
    text += f"; by hand: {', '.join(hand)}, see `datasets show NAME`" if hand else ""
    yield Check(Level.WARNING if hand else Level.OK, "data", text)
    for folder, needs in needed.items():
        free = free_space(folder)
        text = f"{folder} needs up to {size_text(needs)} (estimate), {size_text(free)} are free"
        small = needs > free
        hint = ": make room, or set data.root and data.stores to larger disks" if small else ""
        yield Check(Level.WARNING if small else Level.OK, "disk", text + hint)


def shortened(config: Config, folder: Path) -> Config:
    """Return the recipe for two steps and a tiny probe on forged copies in a folder."""
    short = copy.deepcopy(config)
    data, trainer, probe = short.data, short.trainer, short.probe
    data.root, data.stores, short.out = (str(folder / n) for n in ("data", "stores", "runs"))
    data.forge, data.val_limit = FORGED, 2
    for entry in [*data.train.values(), *data.unseen.values()]:
        entry.centre = ""
        if "group" in entry.options:
            entry.options["group"] = FORGED_GROUP
    trainer.devices, trainer.nodes, trainer.strategy = "1", 1, "auto"
    trainer.epochs = trainer.val_every = trainer.log_every = 1
    trainer.steps_per_epoch = GPU_STEPS if on_gpu(config) else STEPS
    trainer.gradients_every = min(trainer.gradients_every, STEPS)
    trainer.checkpoint_every = min(trainer.checkpoint_every, STEPS)
    if not on_gpu(config):  # as many images would take minutes
        trainer.precision = "32-true"  # few CPUs compute with bf16 quickly
        data.batch_size, data.workers = min(data.batch_size, 2), 0
        for entry in data.train.values():
            entry.batch_size = min(entry.batch_size, 2) if entry.batch_size else None
    probe.role, probe.sizes, probe.repeats, probe.trees = "all", [4], 1, 2
    probe.bootstrap, probe.jobs, probe.backend = 20, 1, "loky"
    probe.map_points, probe.neighbours = min(probe.map_points, 20), min(probe.neighbours, 1)
    probe.every = min(probe.every, 1)
    short.loggers = ["csv"]
    return short


def _rehearsed(config: Config, short: Config) -> Iterator[Check]:
    """Run the short recipe, and tell what follows for the long one."""
    if not config.data.train:
        probe_encoders(short, [f"random:{config.model.encoder}"])
        yield Check(Level.OK, "probe", "embedded, probed and reported the forged copies")
        return
    clock = Clock()
    run = assemble(short, watching=[clock])
    if on_gpu(config):
        torch.cuda.reset_peak_memory_stats()
    carry_out(run)
    yield Check(Level.OK, "training", f"{run.trainer.global_step} steps, export, probe and report")
    if on_gpu(config):
        total = torch.cuda.get_device_properties(0).total_memory
        used = torch.cuda.max_memory_reserved()
        text = f"{used / GIB:.1f} of {total / GIB:.1f} GiB at this recipe's batch size"
        yield Check(Level.OK if used < 0.95 * total else Level.WARNING, "GPU memory", text)
    elif config.data.batch_size > short.data.batch_size:
        text = (
            f"{short.data.batch_size} images per dataset, the recipe has {config.data.batch_size}"
        )
        yield Check(Level.OK, "memory", f"rehearsed on a CPU with {text}: not measured")
    yield Check(Level.OK, "time", _hours(config, clock.images_per_second))


def _hours(config: Config, rate: float) -> str:
    """Estimate the hours of training, without probes, from the rates of model and loader."""
    entries = config.data.train.values()
    images = sum(entry.batch_size or config.data.batch_size for entry in entries)
    images *= config.trainer.rounds_per_step * config.trainer.epochs
    steps = config.trainer.steps_per_epoch or _steps_of_a_pass(config)
    if not steps:
        return "unknown: set trainer.steps_per_epoch, a card lacks its number of images"
    loaders = max(1, min(config.data.workers, available_cores())) * LOADER_RATE
    hours = images * steps / min(rate, loaders) / 3600
    slow = "the model" if rate < loaders else "loading"
    rates = f"model {rate:.0f} images/s here, loaders about {loaders}"
    return f"about {hours:.1f} hours of training per device, bound by {slow} (estimate: {rates})"


def _steps_of_a_pass(config: Config) -> int:
    """Optimizer steps of one pass through the largest dataset; 0 where a card lacks its size."""

    def steps(name: str, entry: DatasetConfig) -> int:
        images = build(name, entry, config.data).images
        each = (entry.batch_size or config.data.batch_size) * config.trainer.rounds_per_step
        return -(-images // each)

    passes = [steps(name, entry) for name, entry in config.data.train.items()]
    return max(passes) if all(passes) else 0


class Clock(Callback):
    """Measures the images per second of the fastest micro-batch, without waiting for data."""

    def __init__(self) -> None:
        self.images_per_second = 0.0
        self._began = 0.0

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._began = _now()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop it."""
        rate = len(batch.images) / (_now() - self._began)
        self.images_per_second = max(self.images_per_second, rate)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
