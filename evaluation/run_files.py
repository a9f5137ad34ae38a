"""Names of the files in a run's folder."""

import re

FINAL = "final_scores.json"
PROBES, PREDICTIONS = "probes.csv", "probe_predictions.h5"
JOURNAL, EMBEDDINGS, CACHE = "probe_journal.jsonl", "embeddings.json", "features"
REPORT, NUMBERS, OVERVIEW, FIGURES = "report.html", "report.json", "learning_curves", "figures"
ROBUSTNESS = "robustness.csv"
NEIGHBOURS, PANELS = "neighbours", "panels"
CONFUSION, RECALL = "confusion", "precision_recall"
"""Ends of the names of figures below `panels/`."""


def file_name(text: str) -> str:
    """Return a name as part of a file's name and of an id."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("_")[-60:] or "x"
