"""The sections of a report: figures, texts and rows in the order in which they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.config import TITLES
from evaluation.figures import learning_curves, training_curves
from evaluation.figures.canvas import Drawing, display_names
from evaluation.figures.embedding_maps import embedding_map
from evaluation.probe.projections import TOGETHER
from evaluation.report.headlines import count, headline
from evaluation.report.run import Run
from evaluation.run_files import OVERVIEW, file_name
from evaluation.statistics.summary import DatasetStatistics
from evaluation.statistics.training_log import TaskLog, TrainingLog

ROLES = {
    "develop": "on the development half of the groups of each unseen dataset",
    "report": "on the report half of the groups of each unseen dataset",
}


@dataclass(frozen=True)
class TaskRow:
    """One task in the table of the training."""

    log: TaskLog
    kind: str  # of the task; empty if it is not known
    final: float | None  # main score of the final weights; None if they were not scored
    split: str  # on which they were scored
    others: str  # further metrics of the final weights, else of the last validation, in words
    cautions: tuple[str, ...]  # what is wrong with the splits behind the scores


def facts(run: Run) -> list[tuple[str, str]]:
    """Return the facts at the top: data, encoder, training, time and licence."""
    origin = run.provenance
    train = [d for d in origin.get("datasets", {}).values() if d.get("role") == "train"]
    rows = []
    if origin.get("encoder"):
        start = f", from {origin['weights']}" if origin.get("weights") else ""
        rows.append(("Encoder", f"{origin['encoder']}{start}"))
    if run.training:
        if train:
            tasks = count(sum(len(d.get("tasks", {})) for d in train), "task")
            images = sum(int(d.get("images", 0)) for d in train)
            amount = f"{count(len(train), 'dataset')}, {tasks}, {images} images"
            rows.append(("Pretraining", amount))
        epochs = count(run.training.epochs, "epoch")
        rows += [("Training", f"{epochs}, {run.training.steps} steps"), *_speed(run.training)]
    if origin.get("role") in ROLES:
        looks = len(origin.get("report_looks", ()))
        counted = f"; look number {looks} at it" if looks else ""
        rows.append(("Probes", f"{ROLES[origin['role']]}{counted}"))
    if origin.get("seconds"):
        rows.append(("Time", duration(float(origin["seconds"]))))
    if origin.get("licence_line"):
        rows.append(("Licence", str(origin["licence_line"])))
    return rows


def _speed(log: TrainingLog) -> list[tuple[str, str]]:
    parts = []
    if log.images_per_second is not None:
        parts.append(f"{log.images_per_second:.0f} images/s per process")
    if log.waiting is not None:
        parts.append(f"{100 * log.waiting:.0f} % of the time waiting for data")
    if log.gpu_memory is not None:
        parts.append(f"{log.gpu_memory:.1f} GiB of GPU memory")
    return [("Speed", ", ".join(parts))] if parts else []


def overview(run: Run) -> list[Drawing]:
    """Draw all unseen datasets in one figure; empty without probes."""
    if not run.headline:
        return []
    note = "SYNTHETIC TISSUE. " if run.synthetic else ""
    first, title = run.headline[0], headline(run.headline)
    legend = (
        f"A {TITLES[first.predictor]} on frozen features of a few labelled images. Line: mean of "
        f"{first.repeats} draws of them. Band: 95 % interval over draws and test groups."
    )
    figure = learning_curves.learning_curves(run.headline, note + title, legend)
    return [Drawing(OVERVIEW, figure, title, legend)]


def curves(studies: Sequence[DatasetStatistics], further: bool = False) -> list[Drawing]:
    """Draw the learning curves of each study; those of further predictors are named so."""
    drawings = []
    for study in studies:
        name, title = f"learning-curve-{file_name(study.dataset)}", study.dataset
        if further:
            name, title = f"{name}-{study.predictor}", f"{title}: {TITLES[study.predictor]}"
        folds = "official test split" if study.folds == 1 else f"{study.folds} grouped folds"
        last = " The rightmost point uses all labels." if study.sizes[-1] == 0 else ""
        caption = (
            f"Line: mean of {study.repeats} draws of the labelled images. Band: 95 % interval. "
            f"{count(study.images, 'test image')} of {count(study.groups, 'group')}, {folds}.{last}"
        )
        text = learning_curves.describe_curve(study)
        drawings.append(Drawing(name, learning_curves.learning_curve(study), title, text, caption))
    return drawings


def maps(run: Run) -> list[Drawing]:
    """Draw embedding maps, one figure per dataset with a column per encoder."""
    drawings = []
    for dataset in dict.fromkeys(one.dataset for one in run.projections):
        chosen = [one for one in run.projections if one.dataset == dataset]
        names = list(display_names([one.encoder for one in chosen]).values())
        colour = "class" if chosen[0].classes else "target value"
        name, title = f"map-{file_name(dataset)}", dataset
        if dataset == TOGETHER:
            name, title, colour = "map-all", "All unseen datasets", "dataset"
        text = (
            f"{len(chosen[0].values)} images of {dataset or 'all unseen datasets'} as points, "
            f"coloured by {colour}, under {' and '.join(names)}: principal components above, "
            "t\N{NON-BREAKING HYPHEN}SNE below."
        )
        drawings.append(Drawing(name, embedding_map(chosen, names), title, text, text))
    return drawings


def task_rows(run: Run) -> list[TaskRow]:
    """Return one row per task of the training."""
    rows = []
    for log in run.tasks:
        start = f"{log.dataset}/{log.task}/"
        scores = run.final.get("scores", {}).items()
        final = {n.removeprefix(start): float(v) for n, v in scores if n.startswith(start)}
        others = final or {name: values[-1] for name, values in log.metrics.items()}
        dataset = run.provenance.get("datasets", {}).get(log.dataset, {})
        rows.append(
            TaskRow(
                log=log,
                kind=str(dataset.get("tasks", {}).get(log.task, "")),
                final=final.get(log.metric),
                split=str(run.final.get("splits", {}).get(log.dataset, "")) if final else "",
                others=", ".join(f"{k} {v:.3f}" for k, v in others.items() if k != log.metric),
                cautions=tuple(dataset.get("cautions", ())),
            )
        )
    return rows


def training(run: Run) -> list[Drawing]:
    """Draw each task's loss and main metric over the training."""
    return [
        Drawing(
            f"training-{file_name(log.dataset)}-{file_name(log.task)}",
            training_curves.training_curve(log),
            f"{log.dataset}: {log.task}",
            training_curves.describe_training(log),
        )
        for log in run.tasks
    ]


def conflicts(run: Run) -> list[Drawing]:
    """Draw how far the gradients of tasks agree; empty if that was not logged."""
    agreements = run.training.agreements if run.training else ()
    if not agreements:
        return []
    text = training_curves.describe_conflicts(agreements)
    tasks = len(training_curves.tasks_of(agreements))
    figure = training_curves.conflict_figure(agreements)
    title = f"Cosine between the gradients of {tasks} tasks"
    return [Drawing("gradients", figure, title, text, text)]


def duration(seconds: float) -> str:
    """Write seconds for readers.

    >>> duration(75), duration(754), duration(9000)
    ('75 s', '13 min', '2 h 30 min')
    """
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
