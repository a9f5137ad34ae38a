"""metrics.csv: appended row by row, complete at any moment, and continued by a resumed run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from datamodules.core.atomic import write_text
from datamodules.core.disk_space import naming

COUNTS = ("epoch", "step")


class CsvLog(Logger):
    """Appends a row per call; a new column rewrites the file atomically.

    Lightning's own CSV logger deletes the file of an earlier run, and a kill while it adds a
    column loses all rows.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """Empty: the run's folder has the name."""
        return ""

    @property
    def version(self) -> str:
        """Empty: the run's folder has the version."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append a row; row n is logged after n + 1 optimizer steps."""
        row = {k: int(v) if k in COUNTS else float(v) for k, v in metrics.items()} | {"step": step}
        if not row.keys() <= set(self._columns):
            self._rewrite(read_rows(self.path), {*self._columns, *row})
        with naming(self.path), self.path.open("ab") as file:
            # One call of the system: a kill cannot mix two rows.
            file.write(_lines(self._columns, [row]).encode())

    @rank_zero_only
    def continue_after(self, steps: int) -> None:
        """Keep the rows up to a checkpoint after `steps`; training writes later ones again."""
        if self.path.is_file():
            rows = [row for row in read_rows(self.path) if int(row["step"]) < steps]
            self._rewrite(rows, {key for row in rows for key in row})

    def _rewrite(self, rows: list[dict[str, str]], columns: set[str]) -> None:
        self._columns = sorted(columns)
        header = dict(zip(self._columns, self._columns, strict=True))
        write_text(self.path, _lines(self._columns, [header, *rows]))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file without empty cells, and without a truncated last line."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    complete = text[: text.rfind("\n") + 1]
    return [
        {key: value for key, value in row.items() if value}
        for row in csv.DictReader(io.StringIO(complete, newline=""))
    ]


def _lines(columns: list[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()
