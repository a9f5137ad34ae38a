"""The `ablate` verb: which dataset helps? Many short trainings that several machines can share.

Every training is a pretraining with probes, in a folder and a process of its own. The process that
works on it holds its lock, so the same command on several machines with one file system shares the
trainings, and a repeated call continues with the unfinished ones.

    <folder>/<training>/config.yaml           its configuration
    <folder>/<training>/log.txt               its output
    <folder>/<training>/<training>-<time>/    its run
    <folder>/<training>/done.json             written last
    <folder>/ablation.csv, .png, .svg
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path

from datamodules.core.atomic import write_table
from datamodules.core.errors import ConfigError, TrainingError
from datamodules.registry import build
from evaluation.figure_files import save_drawing
from evaluation.figures.canvas import Drawing
from evaluation.figures.learning_curves import ablation_figure
from evaluation.statistics.ablation import ALL, compare_variants, table_of
from lightning_app.commands.ablation_runs import AblationRun, lock, train, write_config
from lightning_app.commands.recipes import choose_config, print_banner
from lightning_app.commands.results import print_ablation
from lightning_app.config import Config
from lightning_app.pretrain import prepare_data

log = logging.getLogger(__name__)

TABLE, CHART = "ablation.csv", "ablation"


def run_ablate(path: Path | None, overrides: list[str], out: Path | None = None) -> int:
    """Train and probe every variant that no other process works on, then compare them.

    Raises:
        TrainingError: a training failed; the others are compared nevertheless.
    """
    config = choose_config(path, overrides)
    folder = out or Path(config.out) / f"ablation-{config.name}"
    runs = plan(config, folder)
    print_banner(config)
    train_sets, unseen = (
        [build(name, entry, config.data) for name, entry in entries.items()]
        for entries in (config.data.train, config.data.unseen)
    )
    prepare_data(train_sets, unseen, config)
    for run in runs:
        write_config(run)
    failed, busy = [], 0
    for number, run in enumerate(runs, start=1):
        with lock(run) as locked:
            if not locked:
                busy += 1
            elif run.result() is None:
                place = f"{number} of {len(runs)}"
                log.info("training %s: %s, see %s", place, run.config.name, run.log)
                if not train(run):
                    failed.append(run)
    if busy:
        log.info("%d trainings run elsewhere; repeat the command to include them", busy)
    compare(runs, config, folder)
    if failed:
        logs = ", ".join(str(run.log) for run in failed)
        raise TrainingError(f"{len(failed)} of {len(runs)} trainings failed; see {logs}")
    return 0


def plan(config: Config, folder: Path) -> list[AblationRun]:
    """Return all trainings; they differ in datasets and seed only.

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
        AblationRun(variant, _run_config(config, variant, kept, seed, folder))
        for variant, kept in variants.items()
        for seed in settings.seeds
    ]


def compare(runs: list[AblationRun], config: Config, folder: Path) -> None:
    """Write table and chart of the variants that are finished with every seed."""
    results: dict[str, list[Path | None]] = {}
    for run in runs:
        results.setdefault(run.variant, []).append(run.result())
    complete = {
        variant: [path for path in paths if path]
        for variant, paths in results.items()
        if all(paths)
    }
    if ALL not in complete or len(complete) < 2:
        log.info("nothing to compare yet: '%s' and another variant must be finished", ALL)
        return
    if len(complete) < len(results):
        log.info("not compared yet: %s", ", ".join(sorted(set(results) - set(complete))))
    probe = config.probe
    ablation = compare_variants(complete, config.ablation.seeds, probe.bootstrap, probe.seed)
    write_table(folder / TABLE, table_of(ablation))
    title = "Difference to the training on all datasets"
    save_drawing(Drawing(CHART, ablation_figure(ablation), title, title), folder)
    print_ablation(ablation)
    log.info("table: %s", folder / TABLE)
    log.info("chart: %s", folder / f"{CHART}.png")


def _run_config(config: Config, variant: str, kept: list[str], seed: int, folder: Path) -> Config:
    changed = copy.deepcopy(config)
    changed.name = f"{variant.replace(' ', '-')}-seed{seed}"
    changed.out = str(folder / changed.name)
    changed.seed = changed.data.seed = seed
    if config.probe.role == "report":
        changed.probe.role = "develop"  # an ablation is there to choose
    changed.data.train = {name: config.data.train[name] for name in kept}
    changed.trainer.epochs = config.ablation.epochs
    changed.trainer.steps_per_epoch = config.ablation.steps_per_epoch
    changed.wandb.group = folder.name
    changed.probe.every = changed.probe.map_points = changed.probe.neighbours = 0
    if variant != ALL:  # they would be the same everywhere
        changed.probe.baselines = []
    return changed
