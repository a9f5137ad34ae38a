"""One self-contained HTML file that shows the results of a run, and its numbers as JSON.

Everything is read from the run's folder, so a report can be written again at any time. The page
makes no requests: figures are inline SVG, photographs data URIs, and there is no script.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from datamodules.core.atomic import write_json, write_text
from evaluation.figure_files import read_photograph, save_drawing
from evaluation.report import sections
from evaluation.report.headlines import findings, headline, own_encoder
from evaluation.report.page import render
from evaluation.report.run import Run, read_run
from evaluation.run_files import FIGURES, NUMBERS, REPORT
from evaluation.statistics.summary import DatasetStatistics
from models.training.serialization import from_dict


def write_report(run_dir: Path) -> Path:
    """Write `report.html`, `report.json`, `learning_curves.*` and `figures/` into a run's folder.

    What the folder does not contain is left out. Returns the path of the HTML file.

    Raises:
        ProbeError: there is no such folder, or a file in it is damaged.
    """
    run = read_run(run_dir)
    drawings = {
        "curves": sections.curves(run.headline),
        "further_curves": sections.curves(run.further, further=True),
        "maps": sections.maps(run),
        "training": sections.training(run),
        "conflicts": sections.conflicts(run),
    }
    photographs = {"counts": run.counts, "panels": run.panels, "neighbours": run.neighbours}
    for drawing in sections.overview(run):
        save_drawing(drawing, run_dir)
    page = render(
        "report.html.j2",
        title=str(run.provenance.get("title") or run.name),
        run=run,
        synthetic=run.synthetic,
        headline=headline(run.headline),
        findings=findings(run.headline),
        facts=sections.facts(run),
        tasks=sections.task_rows(run),
        **{part: [save_drawing(d, run_dir / FIGURES) for d in of] for part, of in drawings.items()},
        **{part: [read_photograph(path) for path in of] for part, of in photographs.items()},
    )
    write_json(run_dir / NUMBERS, numbers_of(run))
    path = run_dir / REPORT
    write_text(path, page)
    return path


def numbers_of(run: Run) -> dict[str, Any]:
    """Return all numbers of a report; infinite ones, which JSON does not have, become None."""
    content = {
        "provenance": run.provenance,
        "config": yaml.safe_load(run.config) if run.config else None,
        "headline": headline(run.headline),
        "encoder": own_encoder(run.headline),
        "findings": [asdict(finding) for finding in findings(run.headline)],
        "probes": [asdict(study) for study in run.studies],
        "robustness": list(run.robustness),
        "training": asdict(run.training) if run.training else None,
        "final": run.final or None,
    }
    return dict(_finite(content))


def read_statistics(folder: Path) -> list[DatasetStatistics]:
    """Read the statistics in a run's report.json, so that others show what the report shows."""
    numbers = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    return [from_dict(DatasetStatistics, study) for study in numbers["probes"]]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
