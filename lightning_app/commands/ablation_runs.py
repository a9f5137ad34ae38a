"""One training of an ablation: its folder, its lock and its process."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from datamodules.core.atomic import write_json
from datamodules.core.errors import ConfigError
from evaluation.run_files import PREDICTIONS
from lightning_app.config import Config, save_config, to_yaml
from lightning_app.run.folder import is_claimed
from models.inference.export import FACTS_FILE

log = logging.getLogger(__name__)

DONE = "done.json"


@dataclass(frozen=True)
class AblationRun:
    """One training.

    Attributes:
        variant: "all", "without <dataset>" or "only <dataset>".
        config: its configuration; `config.out` is its folder.
    """

    variant: str
    config: Config

    @property
    def folder(self) -> Path:
        """Folder of all its files."""
        return Path(self.config.out)

    @property
    def log(self) -> Path:
        """File with the output of its process."""
        return self.folder / "log.txt"

    def result(self) -> Path | None:
        """Return the folder of its probed run; None until it is finished."""
        done = self.folder / DONE
        return self.folder / json.loads(done.read_text())["run"] if done.is_file() else None


def write_config(run: AblationRun) -> None:
    """Write a training's configuration, or check that it has not changed since."""
    path = run.folder / "config.yaml"
    if not path.is_file():
        save_config(run.config, path)
    elif path.read_text(encoding="utf-8") != to_yaml(run.config):
        raise ConfigError(
            f"{path}: this ablation began with other settings; name another folder with "
            f"--out, or remove {run.folder.parent}"
        )


@contextmanager
def lock(run: AblationRun) -> Iterator[bool]:
    """Lock a training; yield False if another process holds the lock or still trains.

    The latter happens when an ablation is killed and leaves its training process behind.
    """
    try:
        with FileLock(run.folder / ".lock", blocking=False):
            yield not any(is_claimed(path.parent) for path in run.folder.glob("*/config.yaml"))
    except Timeout:
        yield False


def train(run: AblationRun) -> bool:
    """Train and probe, or continue; return whether the training is finished."""
    exported = _exported(run)
    arguments = ["pretrain", "--config", str(run.folder / "config.yaml"), "resume=auto"]
    if exported:
        arguments = ["probe", str(exported), "--out", str(exported)]
    with run.log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_app", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the terminal interrupted it as well; it stops with a checkpoint
            raise
    exported = _exported(run)
    if code or exported is None or not (exported / PREDICTIONS).is_file():
        log.error("%s failed; see %s", run.config.name, run.log)
        return False
    write_json(run.folder / DONE, {"run": exported.name})
    return True


def _exported(run: AblationRun) -> Path | None:
    """Return the newest run with an exported encoder."""
    paths = sorted(run.folder.glob(f"{run.config.name}-*/{FACTS_FILE}"))
    return paths[-1].parent if paths else None
