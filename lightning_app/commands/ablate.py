"""Which dataset helps? Many short trainings, each a cell that any machine can take on.

Every cell is a pretraining with probes, in a folder and a process of its own. Who works on a cell
holds its lock, so the same command on several machines with one file system shares the cells, and
typed again goes on where it stopped.

    <folder>/<cell>/config.yaml    what is trained
    <folder>/<cell>/log.txt        what it printed
    <folder>/<cell>/<cell>-<time>/ the run
    <folder>/<cell>/done.json      written last
    <folder>/ablation.csv, .png, .svg
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path

from datamodules.checks.leakage import check_overlap
from datamodules.core.atomic import write_table
from datamodules.core.errors import ConfigError, TrainingError
from datamodules.registry import build
from evaluation.figure_files import save_drawing
from evaluation.figures.ablation import ablation_figure
from evaluation.figures.canvas import Drawing
from evaluation.statistics.ablation import ALL, compare_variants, table_of
from evaluation.study import check_probe
from lightning_app.commands.ablation_runs import LOG, Cell, lock, work, write_down
from lightning_app.commands.recipes import choose_config, print_banner
from lightning_app.commands.results import print_ablation
from lightning_app.config import Config
from lightning_app.pretrain import make_ready
from lightning_app.run.encoders import check_baselines

log = logging.getLogger(__name__)

TABLE, CHART = "ablation.csv", "ablation"


def run_ablate(path: Path | None, overrides: list[str], out: Path | None = None) -> int:
    """Train and probe every cell that nobody else works on, then compare; return the exit code."""
    config = choose_config(path, overrides)
    folder = out or Path(config.out) / f"ablation-{config.name}"
    cells = plan(config, folder)
    print_banner(config)
    _prepare(config)
    for cell in cells:
        write_down(cell)
    failed, busy = [], []
    for number, cell in enumerate(cells, start=1):
        with lock(cell) as held:
            if held is None:
                busy.append(cell)
            elif cell.run() is None:
                log.info(
                    "cell %d of %d: %s, see %s",
                    number,
                    len(cells),
                    cell.config.name,
                    cell.folder / LOG,
                )
                failed += [] if work(cell, held) else [cell]
    if busy:
        log.info("%d cells are at work elsewhere; type the same again to see them", len(busy))
    summarise_cells(cells, config, folder)
    if failed:
        names = ", ".join(str(cell.folder / LOG) for cell in failed)
        raise TrainingError(f"{len(failed)} of {len(cells)} cells failed; see {names}")
    return 0


def plan(config: Config, folder: Path) -> list[Cell]:
    """All cells: the same trainings with the same seeds, but for their datasets.

    Raises:
        ConfigError: there is nothing to leave out, nothing to probe on, or no seed.
    """
    names, settings = list(config.data.train), config.ablation
    if len(names) < 2 or not config.data.unseen:
        raise ConfigError(
            "an ablation needs two datasets below data.train and one below data.unseen; it has "
            f"{len(names)} and {len(config.data.unseen)}"
        )
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise ConfigError(f"ablation.seeds={settings.seeds}: name at least one, each once")
    variants = {ALL: names}
    variants |= {f"without {name}": [other for other in names if other != name] for name in names}
    if settings.alone and len(names) > 2:  # of two, leaving one out already leaves one alone
        variants |= {f"only {name}": [name] for name in names}
    return [
        Cell(variant, seed, _cell_config(config, variant, kept, seed, folder))
        for variant, kept in variants.items()
        for seed in settings.seeds
    ]


def summarise_cells(cells: list[Cell], config: Config, folder: Path) -> None:
    """Table and chart of the variants that are finished with every seed."""
    runs = {
        variant: [cell.run() for cell in cells if cell.variant == variant]
        for variant in dict.fromkeys(cell.variant for cell in cells)
    }
    whole = {
        variant: [run for run in found if run is not None]
        for variant, found in runs.items()
        if None not in found
    }
    if ALL not in whole or len(whole) < 2:
        log.info("nothing to compare yet: '%s' and another variant must be finished", ALL)
        return
    if len(whole) < len(runs):
        log.info("not in the comparison yet: %s", ", ".join(sorted(set(runs) - set(whole))))
    probe = config.probe
    ablation = compare_variants(whole, config.ablation.seeds, probe.bootstrap, probe.seed)
    write_table(folder / TABLE, table_of(ablation))
    title = "Difference to the training on all datasets"
    save_drawing(Drawing(CHART, ablation_figure(ablation), title, title), folder)
    print_ablation(ablation)
    log.info("table: %s", folder / TABLE)
    log.info("chart: %s", folder / f"{CHART}.png")


def _cell_config(config: Config, variant: str, kept: list[str], seed: int, folder: Path) -> Config:
    cell = copy.deepcopy(config)
    cell.name = f"{variant.replace(' ', '-')}-seed{seed}"
    cell.out = str(folder / cell.name)
    cell.seed = cell.data.seed = seed
    cell.data.train = {name: config.data.train[name] for name in kept}
    cell.trainer.epochs = config.ablation.epochs
    cell.trainer.steps_per_epoch = config.ablation.steps_per_epoch
    cell.wandb.group = folder.name
    cell.probe.every = cell.probe.map_points = cell.probe.neighbours = 0
    if variant != ALL:  # they would be the same everywhere
        cell.probe.baselines = []
    return cell


def _prepare(config: Config) -> None:
    """Find out now what would stop a cell, and prepare all data once."""
    train, unseen = (
        [build(name, entry, config.data) for name, entry in part.items()]
        for part in (config.data.train, config.data.unseen)
    )
    check_overlap(train, unseen, config.probe.allow_overlap)
    make_ready([*train, *unseen], config)
    check_baselines(config)
    for dataset in unseen:
        check_probe(dataset, config.probe)
