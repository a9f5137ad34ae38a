"""Several runs side by side, compared only where they did the same test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datamodules.core.atomic import write_text
from datamodules.core.errors import ProbeError
from evaluation.report.page import render
from evaluation.report.run import Run, read_run
from evaluation.statistics.bootstrap import Interval
from evaluation.statistics.metrics import Metric


@dataclass(frozen=True)
class Entry:
    """One encoder of one run on one dataset.

    Attributes:
        run: name of the run's folder.
        encoder: its name.
        area: mean score along log(labels).
        scores: one per size.
        synthetic: whether the tissue was drawn by a program; None if unknown.
    """

    run: str
    encoder: str
    area: Interval
    scores: tuple[Interval, ...]
    synthetic: bool | None


@dataclass(frozen=True)
class Board:
    """Entries that did the same test, the best first.

    Attributes:
        dataset: name.
        predictor: what learnt from the features.
        metric: of all scores.
        labels: labelled images behind each score.
        protocol: digest of test images, targets, folds and label counts.
        entries: the ranking.
    """

    dataset: str
    predictor: str
    metric: Metric
    labels: tuple[float, ...]
    protocol: str
    entries: tuple[Entry, ...]


def compare(runs: Sequence[Path], out: Path) -> Path:
    """Write a leaderboard of several runs.

    Encoders share a table only where test images, targets, folds, label counts and predictor
    were the same.
    The same baseline in two runs with equal scores is listed once.

    Args:
        runs: folders of runs with probes.
        out: HTML file to write; the numbers go beside it as JSON.

    Returns:
        `out`.

    Raises:
        ProbeError: a folder is missing or damaged, or none holds probes.
    """
    read = [read_run(folder) for folder in runs]
    found = boards(read)
    if not found:
        names = ", ".join(str(run) for run in runs)
        raise ProbeError(f"no probes in {names}: run `python -m lightning_app probe` on them first")
    page = render(
        "leaderboard.html.j2",
        title="Leaderboard",
        boards=found,
        runs=[run.folder.resolve().name for run in read],
        synthetic=any(run.synthetic for run in read),
    )
    numbers = [asdict(board) for board in found]
    write_text(out.with_suffix(".json"), json.dumps(numbers, indent=2, ensure_ascii=False))
    write_text(out, page)
    return out


def boards(runs: Sequence[Run]) -> list[Board]:
    """Group the encoders of all runs by dataset, protocol and predictor; rank them by area."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    facts: dict[tuple[str, str, str], tuple[Metric, tuple[float, ...]]] = {}
    for run in runs:
        for study in run.studies:
            key = (study.statistics.dataset, study.protocol, study.statistics.predictor)
            facts[key] = (study.statistics.metric, study.statistics.labels)
            entries = groups.setdefault(key, [])
            known = {(entry.encoder, entry.scores) for entry in entries}
            for curve in study.statistics.curves:
                if (curve.encoder, curve.scores) not in known:
                    name = run.folder.resolve().name
                    entries.append(
                        Entry(name, curve.encoder, curve.area, curve.scores, run.synthetic)
                    )
    return [
        Board(
            dataset=dataset,
            predictor=predictor,
            metric=facts[key][0],
            labels=facts[key][1],
            protocol=protocol,
            entries=tuple(_ranked(groups[key], facts[key][0])),
        )
        for key in sorted(groups)
        for dataset, protocol, predictor in [key]
    ]


def _ranked(entries: Sequence[Entry], metric: Metric) -> list[Entry]:
    best_first = metric.higher_is_better
    return sorted(entries, key=lambda entry: entry.area.value, reverse=best_first)
