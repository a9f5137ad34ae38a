"""MLflow: a run per training; a server that fails during one costs its rows, not the training."""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.utilities import rank_zero_only

from datamodules.core.atomic import write_text
from datamodules.core.errors import ConfigError
from lightning_app.config import Config, to_dict

log = logging.getLogger(__name__)

RUN_ID = "mlflow_id.txt"
_FOREIGN = re.compile("[^a-zA-Z0-9_/. -]+")  # MLflow takes it in no name


class MLflowLog(MLFlowLogger):
    """Lightning's logger with the settings as parameters; it continues the run of a folder.

    It logs to the server or database in MLFLOW_TRACKING_URI, else to `<out>/mlflow.db`. Only the
    first process of a run may make one.

    Raises:
        ConfigError: the server or database does not answer.
    """

    def __init__(self, config: Config, folder: Path, tags: Mapping[str, str]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        failure: Any = importlib.import_module("mlflow.exceptions").MlflowException
        for name, level in (("mlflow", "WARNING"), ("pytorch_lightning.loggers.mlflow", "ERROR")):
            logging.getLogger(name).setLevel(level)  # importing MLflow sets one
        local = f"sqlite:///{(Path(config.out) / 'mlflow.db').resolve()}"
        place, project = os.environ.get("MLFLOW_TRACKING_URI") or local, config.wandb.project
        files = (Path(config.out) / "mlflow").resolve().as_uri() if place == local else None
        self._error, self._settings, self._kept = failure, to_dict(config), folder / RUN_ID
        run = self._kept.read_text().strip() if self._kept.is_file() else None
        self._open = True
        try:
            super().__init__(
                *(project, folder.resolve().name, place, dict(tags)),
                artifact_location=files,
                run_id=run,
            )
            self._mlflow_client.get_experiment_by_name(project)
        except failure as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"loggers: MLflow at {place} does not answer ({reason}); correct "
                "MLFLOW_TRACKING_URI, or leave mlflow out of loggers"
            ) from error

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row; the first one begins a new run."""
        if not self._open:
            return
        try:
            if not self._kept.is_file():
                self.log_hyperparams(self._settings)
                write_text(self._kept, str(self.run_id))
            super().log_metrics({_FOREIGN.sub(" - ", k): v for k, v in metrics.items()}, step)
        except self._error as error:
            log.warning("MLflow gets no further rows: %s", " ".join(str(error).split())[:200])
            self._open = False

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Close the run."""
        if self._open:
            super().finalize(status)
