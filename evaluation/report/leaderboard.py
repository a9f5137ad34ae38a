"""Several runs side by side, compared only where they were tested alike."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datamodules.core.atomic import write_json, write_text
from datamodules.core.errors import ProbeError
from evaluation.report.page import render
from evaluation.report.run import Run, read_run
from evaluation.statistics.bootstrap import Interval
from evaluation.statistics.metrics import Metric
from evaluation.statistics.summary import DatasetStatistics


@dataclass(frozen=True)
class Entry:
    """One encoder of one run on one dataset."""

    run: str
    encoder: str
    area: Interval  # mean score along log(labels)
    scores: tuple[Interval, ...]  # one per size
    synthetic: bool | None  # whether the tissue is synthetic; None if unknown


@dataclass(frozen=True)
class Board:
    """Entries that were tested alike, the best first."""

    dataset: str
    predictor: str
    metric: Metric
    labels: tuple[float, ...]  # labelled images behind each score
    protocol: str  # digest of test images, targets, folds and label counts
    entries: tuple[Entry, ...]


def compare(runs: Sequence[Path], out: Path) -> Path:
    """Write a leaderboard of run folders with probes into an HTML file, and its numbers as JSON.

    Encoders share a table only if test images, targets, folds, label counts and predictor were the
    same. A baseline with equal scores in two runs is listed once.

    Raises:
        ProbeError: a folder is missing or damaged, or none contains probes.
    """
    read = [read_run(folder) for folder in runs]
    ranked = boards(read)
    if not ranked:
        names = ", ".join(str(run) for run in runs)
        raise ProbeError(f"no probes in {names}: run `python -m lightning_app probe` on them first")
    page = render(
        "leaderboard.html.j2",
        title="Leaderboard",
        boards=ranked,
        runs=[run.name for run in read],
        synthetic=any(run.synthetic for run in read),
    )
    write_json(out.with_suffix(".json"), [asdict(board) for board in ranked])
    write_text(out, page)
    return out


def boards(runs: Sequence[Run]) -> list[Board]:
    """Group the encoders of all runs by dataset, protocol and predictor; rank them by area."""
    tests: dict[tuple[str, str, str], list[tuple[Run, DatasetStatistics]]] = {}
    for run in runs:
        for study in run.studies:
            key = (study.dataset, study.protocol, study.predictor)
            tests.setdefault(key, []).append((run, study))
    return [_board(tests[key]) for key in sorted(tests)]


def _board(studies: Sequence[tuple[Run, DatasetStatistics]]) -> Board:
    entries: dict[tuple[str, tuple[Interval, ...]], Entry] = {}
    for run, study in studies:
        for curve in study.curves:
            entry = Entry(run.name, curve.encoder, curve.area, curve.scores, run.synthetic)
            entries.setdefault((curve.encoder, curve.scores), entry)
    first = studies[0][1]
    higher = first.metric.higher_is_better
    ranked = sorted(entries.values(), key=lambda entry: entry.area.value, reverse=higher)
    return Board(
        first.dataset, first.predictor, first.metric, first.labels, first.protocol, tuple(ranked)
    )
