"""metrics.csv: written row by row, whole at every moment, and continued by a resumed run."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from datamodules.core.atomic import write_bytes

COUNTS = ("epoch", "step")


class CsvLog(Logger):
    """Appends a row per call; new columns renew the file aside and rename it.

    Lightning's own CSV logger deletes the file of an earlier run, and a kill while it adds a
    column loses the rows so far.

    Args:
        path: of the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """None of its own: the run's folder says it."""
        return ""

    @property
    def version(self) -> str:
        """None of its own: the run's folder says it."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append a row.

        Args:
            metrics: numbers by name.
            step: row n is logged after n + 1 optimizer steps.
        """
        row = {key: _number(key, value) for key, value in metrics.items()} | {"step": step}
        if not row.keys() <= set(self._columns):
            rows = read_rows(self.path)
            self._columns = sorted({*self._columns, *row})
            self._renew(rows)
        with self.path.open("ab", buffering=0) as file:
            file.write(_lines(self._columns, [row]))  # one call: a kill leaves no mixture

    @rank_zero_only
    def continue_after(self, steps: int) -> None:
        """Keep the rows up to a checkpoint; training will write the later ones again.

        Args:
            steps: optimizer steps behind the checkpoint.
        """
        rows = [row for row in read_rows(self.path) if int(row["step"]) < steps]
        self._columns = sorted({key for row in rows for key in row})
        if self.path.is_file():
            self._renew(rows)

    def _renew(self, rows: list[dict[str, str]]) -> None:
        header = dict(zip(self._columns, self._columns, strict=True))
        write_bytes(self.path, _lines(self._columns, [header, *rows]))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file, without empty cells and without a last line that a kill cut short."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [
        {key: value for key, value in row.items() if value}
        for row in csv.DictReader(io.StringIO(whole, newline=""))
    ]


def _lines(columns: list[str], rows: list[dict[str, Any]] | list[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _number(key: str, value: Any) -> int | float:
    return int(value) if key in COUNTS else float(value)
