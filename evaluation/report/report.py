"""One self-contained HTML file that shows the results of a run, and its numbers as JSON.

Everything is read from the run's folder, so a report can be written again at any time. The page
makes no requests: figures are inline SVG, photographs data URIs, and there is no script.
"""

from __future__ import annotations

from pathlib import Path

from datamodules.core.atomic import write_json, write_text
from evaluation.figure_files import read_photograph, save_drawing
from evaluation.report import sections
from evaluation.report.headlines import findings, headline
from evaluation.report.numbers import numbers_of
from evaluation.report.page import render
from evaluation.report.run import read_run
from evaluation.run_files import FIGURES, NUMBERS, REPORT


def write_report(run_dir: Path) -> Path:
    """Write `report.html`, `report.json`, `learning_curves.*` and `figures/` into a run's folder.

    Args:
        run_dir: folder of a run. What it does not contain is left out of the report.

    Returns:
        Path of the HTML file.

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
