"""One self-contained HTML file that shows what a run achieved, and its numbers as JSON.

Everything is read from the run's folder, so a report can be written again at any time. The page
asks nothing of the outside: figures are inline SVG, photographs data URIs, and there is no script.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from datamodules.core.atomic import write_text
from evaluation.report.headlines import findings, headline, own_encoder
from evaluation.report.leaderboard import compare
from evaluation.report.page import render
from evaluation.report.run import Run, read_run
from evaluation.report.sections import images, maps, overview, probes, save_overview
from evaluation.report.training_section import conflicts, task_rows, training

__all__ = ["compare", "numbers_of", "write_report"]

REPORT, NUMBERS = "report.html", "report.json"


def write_report(run_dir: Path) -> Path:
    """Write `report.html`, `report.json`, `learning_curves.*` and `figures/` into a run's folder.

    Args:
        run_dir: folder of a run. What it does not hold is left out of the report.

    Returns:
        Path of the HTML file.

    Raises:
        ProbeError: no such folder, or a file in it is damaged.
    """
    run = read_run(run_dir)
    own = own_encoder(run.headline)
    said = headline(run.headline, own)
    save_overview(run, said)
    page = render(
        "report.html.j2",
        title=str(run.provenance.get("title") or run_dir.resolve().name),
        synthetic=run.synthetic,
        headline=said,
        findings=findings(run.headline, own),
        overview=overview(run),
        probes=probes(run, run.headline),
        beside=probes(run, run.beside),
        tasks=task_rows(run),
        training=training(run),
        conflicts=conflicts(run),
        tallies=images(run.tallies),
        panels=images(run.panels),
        neighbours=images(run.neighbours),
        maps=maps(run),
        provenance=run.provenance,
        config=run.config,
    )
    write_text(run_dir / NUMBERS, json.dumps(numbers_of(run), indent=2, ensure_ascii=False))
    path = run_dir / REPORT
    write_text(path, page)
    return path


def numbers_of(run: Run) -> dict[str, Any]:
    """All numbers behind the report, as plain containers.

    A number that is out of range is null; the text beside it says in which direction.
    """
    own = own_encoder(run.headline)
    content = {
        "provenance": run.provenance,
        "config": yaml.safe_load(run.config) if run.config else None,
        "headline": headline(run.headline, own),
        "encoder": own,
        "findings": [asdict(finding) for finding in findings(run.headline, own)],
        "probes": [
            {
                **asdict(study.statistics),
                "baseline": study.baseline,
                "protocol": study.protocol,
                "seeds": study.seeds,
            }
            for study in run.studies
        ],
        "training": asdict(run.training) if run.training else None,
        "final": run.final or None,
    }
    return dict(_finite(content))


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
