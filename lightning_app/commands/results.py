"""Results of a finished run in the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evaluation.config import FOREST
from evaluation.figures.canvas import display_names, number
from evaluation.report.headlines import VERDICTS, bracket
from evaluation.report.report import read_statistics
from evaluation.run_files import REPORT
from evaluation.statistics.ablation import Ablation
from evaluation.statistics.bootstrap import Interval
from evaluation.statistics.metrics import Metric
from evaluation.statistics.summary import DatasetStatistics

WIDTH = 120  # columns that the tables need if the terminal's width is unknown


def print_result(folder: Path) -> None:
    """Print the probe scores of a run, as in its report, and the path of the report."""
    console = _console()
    for study in read_statistics(folder):
        console.print(scores_table(study))
    origin = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    if origin["synthetic"]:
        text = "The tissue was SYNTHETIC: these scores only test the pipeline."
        console.print(text, style="yellow")
    if origin.get("licence_line"):
        console.print(f"licence: {origin['licence_line']}")
    if (folder / "encoder.safetensors").is_file():
        console.print(f"encoder: {folder / 'encoder.safetensors'}")
    offline = sorted((folder / "wandb").glob("offline-run-*"))
    if offline:
        # One for each time the run was resumed, all with one id: W&B joins them in their order.
        paths = " ".join(map(str, offline))
        console.print(f"W&B:     offline; `wandb sync {paths}` sends it")
    console.print(f"report:  {folder / REPORT}")


def scores_table(study: DatasetStatistics) -> Table:
    """Return the scores of all encoders on one dataset, with 95 % intervals."""
    name = study.dataset if study.predictor == FOREST else f"{study.dataset}, {study.predictor}"
    table = Table(title=f"{name}: {_title(study.metric)}, 95 % interval", title_justify="left")
    table.add_column("labelled images")
    for size, labels in zip(study.sizes, study.labels, strict=True):
        table.add_column(f"{labels:.0f}" + ("" if size else " (all)"), justify="right")
    compared = {one.encoder: one for one in study.comparisons}
    for curve in study.curves:
        table.add_row(curve.encoder, *(_text(study.metric, score) for score in curve.scores))
        if curve.encoder in compared:
            one = compared[curve.encoder]
            differences = (_text(study.metric, each, signed=True) for each in one.differences)
            table.add_row(f"  minus {one.baseline}", *differences)
    constant = number(study.constant, study.metric.percent)
    table.add_row("best constant", *[constant] * len(study.sizes))
    return table


def print_ablation(ablation: Ablation) -> None:
    """Print the comparison of every variant with the training on all datasets."""
    console = _console()
    for study in ablation.studies:
        console.print(_ablation_table(study))
        for caution in study.cautions:
            console.print(caution)
    if ablation.caution:
        console.print(ablation.caution)


def _ablation_table(study: DatasetStatistics) -> Table:
    """Return the area under the curve of every variant, and its paired difference."""
    metric = study.metric
    title = f"{study.dataset}: {_title(metric)}, mean over log(labels)"
    table = Table(title=title, title_justify="left")
    table.add_column("trained on")
    table.add_column("score", justify="right")
    table.add_column("minus all, 95 % interval", justify="right")
    table.add_column("")
    compared = {one.encoder: one for one in study.comparisons}
    names = display_names(study.encoders)
    for curve in study.curves:
        row = [names[curve.encoder], number(curve.area.value, metric.percent)]
        if curve.encoder in compared:
            one = compared[curve.encoder]
            row += [_text(metric, one.area, signed=True), VERDICTS[one.verdict]]
        table.add_row(*row)
    return table


def _console() -> Console:
    width = max(Console().width, WIDTH)
    return Console(width=width, soft_wrap=True, highlight=False, markup=False)


def _title(metric: Metric) -> str:
    unit = " (%)" if metric.percent else ""
    return f"{metric.title}{unit}, {'higher' if metric.higher_is_better else 'lower'} is better"


def _text(metric: Metric, score: Interval, signed: bool = False) -> str:
    value = number(score.value, metric.percent, signed)
    return f"{value} ({bracket(score, metric.percent, signed)})"
