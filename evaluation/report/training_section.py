"""The report's part on the training: a row and a panel per task, and how tasks get along."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.figures.canvas import inline_svg, save
from evaluation.figures.gradient_conflicts import conflict_figure, describe_conflicts, tasks_of
from evaluation.figures.training_curves import training_panel
from evaluation.figures.training_log import TaskLog
from evaluation.report.run import Run
from evaluation.report.sections import Shown, slug


@dataclass(frozen=True)
class TaskRow:
    """One task of the table.

    Attributes:
        dataset, task: names.
        kind: of the task; empty where it is not known.
        first_loss, last_loss: training loss.
        metric: name of the main validation metric; empty without validation.
        last: its last value.
        best: its best value.
        best_step: optimizer step of the best value.
        final: main score of the final weights; None where they were not scored.
        split: on which they were scored.
        others: further metrics of the final weights, else of the last validation, in words.
    """

    dataset: str
    task: str
    kind: str
    first_loss: float
    last_loss: float
    metric: str
    last: float | None
    best: float | None
    best_step: int | None
    final: float | None
    split: str
    others: str


def task_rows(run: Run) -> list[TaskRow]:
    """One row per task of the training."""
    return [_row(run, log) for log in run.training.tasks] if run.training else []


def _row(run: Run, log: TaskLog) -> TaskRow:
    facts = run.provenance.get("datasets", {}).get(log.dataset, {})
    values = log.metrics.get(log.metric, [])
    best = min if log.lower_is_better else max
    place = values.index(best(values)) if values else None
    start = f"{log.dataset}/{log.task}/"
    final = {
        name.removeprefix(start): float(value)
        for name, value in run.final.get("scores", {}).items()
        if name.startswith(start)
    }
    others = final or {name: series[-1] for name, series in log.metrics.items()}
    return TaskRow(
        dataset=log.dataset,
        task=log.task,
        kind=str(facts.get("tasks", {}).get(log.task, "")),
        first_loss=log.loss[0],
        last_loss=log.loss[-1],
        metric=log.metric,
        last=values[-1] if values else None,
        best=values[place] if place is not None else None,
        best_step=log.metric_steps[place] + 1 if place is not None else None,
        final=final.get(log.metric),
        split=str(run.final.get("splits", {}).get(log.dataset, "")) if final else "",
        others=", ".join(f"{k} {v:.3f}" for k, v in others.items() if k != log.metric),
    )


def training(run: Run) -> list[Shown]:
    """Course of each task's loss and main metric."""
    if run.training is None:
        return []
    shown = []
    for log in run.training.tasks:
        figure = training_panel(log)
        name = f"training-{slug(log.dataset)}-{slug(log.task)}"
        save(figure, run.folder / "figures" / name)
        values = log.metrics.get(log.metric, [])
        text = f"Training loss from {log.loss[0]:.3f} to {log.loss[-1]:.3f}."
        if values:
            text += f" Validation {log.metric} from {values[0]:.3f} to {values[-1]:.3f}."
        svg = inline_svg(figure, name, f"Training of {log.dataset}, {log.task}", text)
        shown.append(Shown(f"{log.dataset}: {log.task}", svg, ""))
    return shown


def conflicts(run: Run) -> list[Shown]:
    """How far tasks want the same of the encoder; nothing where that was not logged."""
    if run.training is None or not run.training.agreements:
        return []
    agreements = run.training.agreements
    figure, name = conflict_figure(agreements), "gradients"
    save(figure, run.folder / "figures" / name)
    text = describe_conflicts(agreements)
    title = f"Cosine between the gradients of {len(tasks_of(agreements))} tasks"
    return [Shown(title, inline_svg(figure, name, title, text), text)]
