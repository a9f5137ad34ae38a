"""Interleaved timing, and the facts that belong beside every number."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

Rows = list[dict[str, Any]]
PACKAGES = ("torch", "albumentations", "timm", "pytorch-lightning", "scikit-learn", "numpy")
PEERS = ("litdata", "webdataset", "segmentation-models-pytorch", "torchvision")


def seconds(ways: Mapping[str, Callable[[], Any]], rounds: int = 5) -> dict[str, list[float]]:
    """Time of each way in each round; the ways take turns, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def ratio(times: Mapping[str, list[float]], ours: str, theirs: str) -> float:
    """How many times as fast ours is as theirs: the median over rounds."""
    return statistics.median(b / a for a, b in zip(times[ours], times[theirs], strict=True))


def rates(times: Mapping[str, list[float]], count: int) -> dict[str, float]:
    """Items per second of each way, by its median."""
    return {name: round(count / statistics.median(spent), 1) for name, spent in times.items()}


def row(goal: str, what: str, value: float, wanted: float, most: bool = False, **more: Any) -> Any:
    """One line of the table; `most` where `wanted` is an upper limit."""
    met = value <= wanted if most else value >= wanted
    sign = "at most" if most else "at least"
    found = {"goal": goal, "what": what, "value": round(value, 3), "wanted": f"{sign} {wanted:g}"}
    return {**found, "met": bool(met), **more}


def facts() -> dict[str, Any]:
    """Machine, versions and date."""
    versions = {"python": platform.python_version()}
    for name in (*PACKAGES, *PEERS):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}; not measured on a GPU",
        "date": date.today().isoformat(),
        "versions": versions,
    }
