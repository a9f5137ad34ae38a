"""The numbers of a report as plain containers, for report.json and its readers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from evaluation.report.headlines import findings, headline, own_encoder
from evaluation.report.run import Run
from evaluation.run_files import NUMBERS
from evaluation.statistics.summary import DatasetStatistics


def numbers_of(run: Run) -> dict[str, Any]:
    """Return all numbers of a report.

    Infinite numbers, which JSON does not have, become None; the text beside them gives the
    direction.
    """
    content = {
        "provenance": run.provenance,
        "config": yaml.safe_load(run.config) if run.config else None,
        "headline": headline(run.headline),
        "encoder": own_encoder(run.headline),
        "findings": [asdict(finding) for finding in findings(run.headline)],
        "probes": [asdict(study) for study in run.studies],
        "training": asdict(run.training) if run.training else None,
        "final": run.final or None,
    }
    return dict(_finite(content))


def read_statistics(folder: Path) -> list[DatasetStatistics]:
    """Read the statistics in a run's report.json, so that others show what the report shows."""
    numbers = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    return [_restored(DatasetStatistics, study) for study in numbers["probes"]]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _restored(kind: Any, value: Any) -> Any:
    """Return a value of a type from its JSON; the infinite numbers of these types are positive."""
    if isinstance(kind, type) and is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{name: _restored(types[name], part) for name, part in value.items()})
    if get_origin(kind) is tuple:
        return tuple(_restored(get_args(kind)[0], part) for part in value)
    return math.inf if value is None and kind is float else value
