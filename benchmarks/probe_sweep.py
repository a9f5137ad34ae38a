"""The sweep of forests in two processes against the loop that one would write (goal f).

Both have to give the same predictions, bit for bit.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from benchmarks.timing import Rows, ratio, row, seconds
from datamodules.core.records import TaskKind
from evaluation.config import ProbeConfig
from evaluation.probe.features import Features
from evaluation.probe.folds import make_folds
from evaluation.probe.sweep import plan, sweep

SETTINGS = ProbeConfig(sizes=[10, 30, 100, 300, 1000, 0], repeats=3, trees=100)
ENCODERS = ("ours", "imagenet:x")
ROWS, WIDTH, GROUPS = 2000, 384, 50


def measure(folder: Path, rounds: int = 2) -> Rows:
    """Time every way in turn; other predictions than the plain loop's end the program."""
    tables = [features(encoder, seed) for seed, encoder in enumerate(ENCODERS)]
    found: list[np.ndarray] = []
    times = seconds(
        {
            "plain loop": lambda: found.append(plain_loop(tables)),
            "sweep": lambda: found.append(swept(tables, 2)),
        },
        rounds,
    )  # the round that does not count starts the worker processes, which a long sweep does once
    if not all(np.array_equal(found[0], other) for other in found):
        raise SystemExit("the sweep predicts otherwise than the plain loop")
    return [
        row("f", "sweep in two processes against a loop", ratio(times, "sweep", "plain loop"), 1.8)
    ]


def features(encoder: str, seed: int) -> Features:
    """Features of a two-class dataset; the groups are patients, a fifth of them tests."""
    rng = np.random.default_rng(seed)
    targets = np.random.default_rng(9).integers(0, 2, ROWS)
    values = rng.normal(size=(ROWS, WIDTH)) + 0.3 * targets[:, None] * rng.normal(size=WIDTH)
    groups = np.arange(ROWS, dtype=np.int32) % GROUPS
    return Features(
        dataset="made up",
        encoder=encoder,
        kind=TaskKind.CLASSIFICATION,
        classes=("no", "yes"),
        positive=1,
        features=values.astype(np.float32),
        targets=targets,
        groups=groups,
        split=np.where(groups < 0.8 * GROUPS, 0, 2).astype(np.uint8),
        folds=0,
        key=f"{encoder}-{seed}",
        rows=np.arange(ROWS),
    )


def plain_loop(tables: list[Features]) -> np.ndarray:
    """What one would write: fit and predict, one forest after the other."""
    said = []
    for table in tables:
        folds = make_folds(
            table.dataset, table.kind, table.targets, table.groups, table.split, 0, SETTINGS.seed
        )
        for cell in plan(table, folds, SETTINGS):
            forest = RandomForestClassifier(SETTINGS.trees, random_state=cell.seed).fit(
                table.features[cell.train], table.targets[cell.train]
            )
            said.append(forest.predict(table.features[cell.test]))
    places = (len(tables), SETTINGS.repeats, len(SETTINGS.sizes))
    return np.stack(said).reshape(*places, -1).swapaxes(1, 2)


def swept(tables: list[Features], processes: int) -> np.ndarray:
    """The same by the project's sweep, with an empty journal."""
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(SETTINGS, jobs=processes)
        (result,) = sweep(tables, settings, Path(folder) / "journal")
    return result.predicted
