"""The report's sections: figures drawn and saved, rows in the order in which they are shown."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.config import TITLES
from evaluation.figures.canvas import inline_svg, read_picture, save
from evaluation.figures.embedding_maps import embedding_map
from evaluation.figures.learning_curves import describe_curve, learning_curve, learning_curves
from evaluation.figures.palette import looks
from evaluation.figures.training_log import TrainingLog
from evaluation.probe.projections import TOGETHER
from evaluation.report.headlines import baseline_title, count
from evaluation.report.run import Run, Study
from evaluation.statistics.summary import DatasetStatistics

OVERVIEW = "learning_curves"


@dataclass(frozen=True)
class Shown:
    """A figure with its caption.

    Attributes:
        heading: above it.
        figure: inline SVG or img element, to be shown as it is.
        caption: below it.
    """

    heading: str
    figure: str
    caption: str


@dataclass(frozen=True)
class ProbeSection:
    """One dataset of the probes.

    Attributes:
        shown: learning curves.
        title: the dataset's full name; empty where it is not known.
        names: display name by encoder.
        statistics: all numbers.
        baseline: what the baseline's features are called.
        predictor: what people call what learnt from the features.
    """

    shown: Shown
    title: str
    names: dict[str, str]
    statistics: DatasetStatistics
    baseline: str
    predictor: str


def overview(run: Run) -> list[tuple[str, str]]:
    """The facts at the top: what was trained on what, and how long it took."""
    origin = run.provenance
    datasets: dict[str, dict[str, Any]] = origin.get("datasets", {})
    train = [d for d in datasets.values() if d.get("role") == "train"]
    facts = []
    if origin.get("encoder"):
        start = origin.get("weights")
        facts.append(("Encoder", f"{origin['encoder']}" + (f", from {start}" if start else "")))
    if train and run.training:
        tasks = sum(len(d.get("tasks", {})) for d in train)
        amount = sum(int(d.get("images", 0)) for d in train)
        facts.append(
            (
                "Pretraining",
                f"{count(len(train), 'dataset')}, {count(tasks, 'task')}, {amount} images",
            )
        )
    if run.training:
        facts.append(
            ("Training", f"{count(run.training.epochs, 'epoch')}, {run.training.steps} steps")
        )
        facts += _speed(run.training)
    if origin.get("seconds"):
        facts.append(("Time", duration(float(origin["seconds"]))))
    if origin.get("licence_line"):
        facts.append(("Licence", str(origin["licence_line"])))
    return facts


def _speed(log: TrainingLog) -> list[tuple[str, str]]:
    parts = []
    if log.images_per_second is not None:
        parts.append(f"{log.images_per_second:.0f} images/s per process")
    if log.waiting is not None:
        parts.append(f"{100 * log.waiting:.0f} % of the time waiting for data")
    if log.gpu_memory is not None:
        parts.append(f"{log.gpu_memory:.1f} GiB of GPU memory")
    return [("Speed", ", ".join(parts))] if parts else []


def probes(run: Run, studies: Sequence[Study]) -> list[ProbeSection]:
    """Learning curves of some of a run's studies, also saved as PNG and SVG."""
    return [_probe(run, study) for study in studies]


def save_overview(run: Run, headline: str) -> None:
    """Write `learning_curves.png` and `.svg`: all unseen datasets in one figure."""
    if not run.headline:
        return
    note = "SYNTHETIC TISSUE. " if run.synthetic else ""
    drawn = [(study.statistics, study.baseline) for study in run.headline]
    first = run.headline[0].statistics
    legend = (
        f"A {TITLES[first.predictor]} on frozen features of so many labelled images. Line: mean "
        f"of {first.repeats} draws of them. Band: 95 % interval over draws and test groups."
    )
    save(learning_curves(drawn, note + headline, legend), run.folder / OVERVIEW)


def _probe(run: Run, study: Study) -> ProbeSection:
    statistics = study.statistics
    predictor = TITLES[statistics.predictor]
    name = f"learning-curve-{slug(statistics.dataset)}"
    heading = statistics.dataset
    if study in run.beside:
        name, heading = f"{name}-{statistics.predictor}", f"{heading}: {predictor}"
    figure = learning_curve(statistics, study.baseline)
    save(figure, run.folder / "figures" / name)
    folds = "official test split" if statistics.folds == 1 else f"{statistics.folds} grouped folds"
    last = " The rightmost point takes all labels." if statistics.sizes[-1] == 0 else ""
    caption = (
        f"Line: mean of {statistics.repeats} draws of the labelled images. Band: 95 % interval. "
        f"{count(statistics.images, 'test image')} of {count(statistics.groups, 'group')}, "
        f"{folds}.{last}"
    )
    encoders = [curve.encoder for curve in statistics.curves]
    alternative = describe_curve(statistics, study.baseline)
    svg = inline_svg(figure, name, f"Learning curves on {heading}", alternative)
    return ProbeSection(
        shown=Shown(heading, svg, caption),
        title=str(_dataset(run, statistics.dataset).get("title", "")),
        names={e: look.name for e, look in looks(encoders, study.baseline).items()},
        statistics=statistics,
        baseline=baseline_title(study.baseline),
        predictor=predictor,
    )


def maps(run: Run) -> list[Shown]:
    """Embedding maps, one figure per dataset with a column per encoder."""
    shown = []
    baseline = run.studies[0].baseline if run.studies else None
    for dataset in dict.fromkeys(one.dataset for one in run.projections):
        chosen = [one for one in run.projections if one.dataset == dataset]
        names = [look.name for look in looks([o.encoder for o in chosen], baseline).values()]
        figure = embedding_map(chosen, names)
        together = dataset == TOGETHER
        heading = "All unseen datasets" if together else dataset
        name = f"map-{'all' if together else slug(dataset)}"
        save(figure, run.folder / "figures" / name)
        colour = "class" if chosen[0].classes else "target value"
        text = (
            f"{len(chosen[0].values)} images of {dataset or 'all unseen datasets'} as points, "
            f"coloured by {'dataset' if together else colour}, under {' and '.join(names)}: "
            "principal components above, t\N{NON-BREAKING HYPHEN}SNE below."
        )
        svg = inline_svg(figure, name, f"Embedding map of {heading}", text)
        shown.append(Shown(heading, svg, text))
    return shown


def images(paths: Sequence[Path]) -> list[Shown]:
    """PNG files as embedded pictures, each with the words that it holds."""
    shown = []
    for path in paths:
        uri, words = read_picture(path)
        picture = f'<img src="{uri}" alt="{html.escape(words.text)}">'
        shown.append(Shown(words.title, picture, words.caption))
    return shown


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _dataset(run: Run, name: str) -> dict[str, Any]:
    return dict(run.provenance.get("datasets", {}).get(name, {}))


def slug(text: str) -> str:
    """A name as part of a file's name and of an id."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "x"
