"""What a finished run says in the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evaluation.config import FOREST
from evaluation.figures.palette import display_names
from evaluation.report.headlines import VERDICTS
from evaluation.statistics.ablation import Ablation
from evaluation.statistics.bootstrap import Interval
from evaluation.statistics.predictions import read_predictions
from evaluation.statistics.summary import DatasetStatistics, summarise

WIDTH = 120  # columns that the tables need where no terminal says how many there are
ARROWS = {True: "higher is better", False: "lower is better"}


def print_result(folder: Path) -> None:
    """Print the probe scores of a run and where its report lies."""
    console = _console()
    predictions = folder / "probe_predictions.h5"
    if predictions.is_file():
        for result in read_predictions(predictions):
            console.print(scores_table(summarise(result)))
    origin = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    if origin["synthetic"]:
        console.print("[yellow]The tissue was SYNTHETIC: these scores prove the chain only.[/]")
    if origin.get("licence_line"):
        console.print(f"licence: {origin['licence_line']}", markup=False)
    if (folder / "encoder.safetensors").is_file():
        console.print(f"encoder: {folder / 'encoder.safetensors'}", markup=False)
    offline = sorted((folder / "wandb").glob("offline-run-*"))
    if offline:
        # One for each time the run was resumed, all with one id: W&B joins them in their order.
        paths = " ".join(map(str, offline))
        console.print(f"W&B:     offline; `wandb sync {paths}` sends it", markup=False)
    console.print(f"report:  {folder / 'report.html'}", markup=False)


def scores_table(study: DatasetStatistics) -> Table:
    """Scores of all encoders on one dataset, with 95 % intervals."""
    direction = ARROWS[study.metric.higher_is_better]
    name = study.dataset if study.predictor == FOREST else f"{study.dataset}, {study.predictor}"
    table = Table(
        title=f"{name}: {study.metric.title} ({direction}), mean and 95 % interval",
        title_justify="left",
    )
    table.add_column("labelled images")
    for size, labels in zip(study.sizes, study.labels, strict=True):
        table.add_column(f"{labels:.0f}" + ("" if size else " (all)"), justify="right")
    compared = {one.encoder: one for one in study.comparisons}
    for curve in study.curves:
        table.add_row(curve.encoder, *(_text(study, score) for score in curve.scores))
        if curve.encoder in compared:
            one = compared[curve.encoder]
            differences = (_text(study, difference, "+") for difference in one.differences)
            table.add_row(f"  minus {one.baseline}", *differences)
    table.add_row("best constant", *([f"{study.constant:{_digits(study)}}"] * len(study.sizes)))
    return table


def print_ablation(ablation: Ablation) -> None:
    """Print what every variant is worth against the training on all datasets."""
    console = _console()
    for study in ablation.studies:
        console.print(_ablation_table(study))
        for caution in study.cautions:
            console.print(caution, markup=False)
    if ablation.caution:
        console.print(ablation.caution, markup=False)


def _ablation_table(study: DatasetStatistics) -> Table:
    """Area under the curve of every variant, and its paired difference."""
    direction, digits = ARROWS[study.metric.higher_is_better], _digits(study)
    table = Table(
        title=f"{study.dataset}: {study.metric.title} ({direction}), mean over log(labels)",
        title_justify="left",
    )
    table.add_column("trained on")
    table.add_column("score", justify="right")
    table.add_column("minus all, 95 % interval", justify="right")
    table.add_column("")
    compared = {one.encoder: one for one in study.comparisons}
    names = display_names([curve.encoder for curve in study.curves])
    for curve in study.curves:
        row = [names[curve.encoder], f"{curve.area.value:{digits}}"]
        if curve.encoder in compared:
            one = compared[curve.encoder]
            row += [_text(study, one.area, "+"), VERDICTS[one.verdict]]
        table.add_row(*row)
    return table


def _console() -> Console:
    terminal = Console(highlight=False)
    return Console(width=max(terminal.width, WIDTH), soft_wrap=True, highlight=False)


def _text(study: DatasetStatistics, found: Interval, sign: str = "") -> str:
    form = sign + _digits(study)
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def _digits(study: DatasetStatistics) -> str:
    return ".3f" if study.metric.percent else ".4f"
