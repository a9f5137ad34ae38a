"""An offline W&B run, read back by W&B's own reader."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_records(run_folder: Path) -> list[dict[str, Any]]:
    """All records of the one offline run in a folder, in the order in which they were written."""
    (path,) = (run_folder / "wandb").glob("offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_type(records: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    """The content of all records of a type."""
    return (record[kind] for record in records if record["type"] == kind)


def history(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Every value that was logged, by key; parts of a picture or table follow a dot."""
    values: dict[str, list[Any]] = {}
    for row in of_type(records, "history"):
        for key, value in row["item"].items():
            values.setdefault(key, []).append(value)
    return values


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the run's summary says at its end."""
    merged: dict[str, Any] = {}
    for row in of_type(records, "summary"):
        merged |= row.get("update", {})
    return merged


def artifacts_of(records: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Files of each artifact, by its name."""
    return {
        entry["name"]: {file["path"] for file in entry["manifest"]["contents"]}
        for entry in of_type(records, "artifact")
    }
