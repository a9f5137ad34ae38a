"""How long the sweep of forests takes at 1 and 2 processes, and against the loop one would write.

All ways are timed in turn, round after round, so that their ratios hold on a machine that others
use, too; every way has to give the same predictions, bit for bit. Run from the checkout:

    python benchmarks/probe_sweep.py [ROUNDS]
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import sklearn
from sklearn.ensemble import RandomForestClassifier

from datamodules.core.records import TaskKind
from evaluation.config import ProbeConfig
from evaluation.probe.features import Features
from evaluation.probe.folds import make_folds
from evaluation.probe.sweep import plan, sweep

SETTINGS = ProbeConfig(sizes=[10, 30, 100, 300, 1000, 0], repeats=3, trees=100)
ENCODERS = ("ours", "imagenet:x")
ROWS, WIDTH, GROUPS = 2000, 384, 50
RESULT = Path(__file__).parent / "results" / "probe_sweep.json"


def main() -> None:
    """Time every way in turn and write what was found."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    tables = [features(encoder, seed) for seed, encoder in enumerate(ENCODERS)]
    ways: dict[str, Callable[[], np.ndarray]] = {
        "plain loop": lambda: plain_loop(tables, 1),
        "plain loop, 2 threads in each forest": lambda: plain_loop(tables, 2),
        "sweep, 1 process": lambda: swept(tables, 1),
        "sweep, 2 processes": lambda: swept(tables, 2),
    }
    swept(tables, 2)  # starts the worker processes, which a long sweep does once
    times: dict[str, list[float]] = {name: [] for name in ways}
    loads = [os.getloadavg()[0]]
    expected: np.ndarray | None = None
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            found = way()
            times[name].append(time.perf_counter() - started)
            expected = found if expected is None else expected
            if not np.array_equal(found, expected):
                raise SystemExit(f"{name}: other predictions than the plain loop")
        loads.append(os.getloadavg()[0])
    write(times, loads, rounds)


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
    )


def plain_loop(tables: list[Features], threads: int) -> np.ndarray:
    """What one would write: fit and predict, one forest after the other."""
    said = []
    for table in tables:
        folds = make_folds(
            table.dataset, table.kind, table.targets, table.groups, table.split, 0, SETTINGS.seed
        )
        for cell in plan(table, folds, SETTINGS):
            forest = RandomForestClassifier(
                SETTINGS.trees, random_state=cell.seed, n_jobs=threads
            ).fit(table.features[cell.train], table.targets[cell.train])
            said.append(forest.predict(table.features[cell.test]))
    places = (len(tables), SETTINGS.repeats, len(SETTINGS.sizes))
    return np.stack(said).reshape(*places, -1).swapaxes(1, 2)


def swept(tables: list[Features], processes: int) -> np.ndarray:
    """The same by the project's sweep, with an empty journal."""
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(SETTINGS, jobs=processes)
        (result,) = sweep(tables, settings, Path(folder) / "journal")
    return result.predicted


def write(times: dict[str, list[float]], loads: list[float], rounds: int) -> None:
    """Write and print times and their ratios: of medians, and of what each way took at best.

    Where others use the machine, the best of several rounds is nearest to what it can do.
    """
    reference = times["plain loop"]
    found = {
        name: {
            "seconds_median": round(statistics.median(spent), 2),
            "seconds_best": round(min(spent), 2),
            "times_as_fast_by_median": round(
                statistics.median(reference) / statistics.median(spent), 2
            ),
            "times_as_fast_by_best": round(min(reference) / min(spent), 2),
        }
        for name, spent in times.items()
    }
    content = {
        "machine": f"{os.cpu_count()} noisy CPU cores, {platform.machine()}, shared with other "
        f"work: load average {min(loads):.0f} to {max(loads):.0f}; read the ratios",
        "versions": {"python": platform.python_version(), "scikit-learn": sklearn.__version__},
        "task": f"{len(ENCODERS)} encoders x {len(SETTINGS.sizes)} sizes x {SETTINGS.repeats} "
        f"repeats, {SETTINGS.trees} trees, {ROWS} x {WIDTH} features, a fifth tests",
        "rounds": rounds,
        "results": found,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
