"""Names of the files in a run's folder."""

from __future__ import annotations

FINAL = "final_scores.json"
PROBES, PREDICTIONS = "probes.csv", "probe_predictions.h5"
JOURNAL, EMBEDDINGS, CACHE = "probe_journal.jsonl", "embeddings.json", "features"
REPORT, NUMBERS, OVERVIEW, FIGURES = "report.html", "report.json", "learning_curves", "figures"
NEIGHBOURS, PANELS = "neighbours", "panels"
CONFUSION, RECALL = "confusion", "precision_recall"
"""Ends of the names of figures below `panels/`."""
