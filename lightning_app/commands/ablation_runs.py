"""One training of an ablation: its folder, its lock, its process."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datamodules.core.atomic import write_json
from datamodules.core.errors import ConfigError
from evaluation.run_files import PREDICTIONS
from lightning_app.config import Config, save_config, to_yaml
from models.inference.export import FACTS_FILE

log = logging.getLogger(__name__)

DONE, LOG = "done.json", "log.txt"


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        variant: "all", "without <dataset>" or "only <dataset>".
        seed: of the training.
        config: of its run; `config.out` is the cell's folder.
    """

    variant: str
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        """Where everything of it goes."""
        return Path(self.config.out)

    def run(self) -> Path | None:
        """Folder of its probed run; None before it is finished."""
        if not (self.folder / DONE).is_file():
            return None
        return self.folder / str(json.loads((self.folder / DONE).read_text())["run"])


def write_down(cell: Cell) -> None:
    """Write a cell's configuration, or check that it is the one that it began with."""
    path = cell.folder / "config.yaml"
    if path.is_file():
        if path.read_text(encoding="utf-8") != to_yaml(cell.config):
            raise ConfigError(
                f"{path}: this ablation began with other settings; name another folder with "
                f"--out, or remove {cell.folder.parent}"
            )
        return
    save_config(cell.config, path)


@contextmanager
def lock(cell: Cell) -> Iterator[int | None]:
    """Descriptor of the cell's locked file; None where somebody else holds the lock.

    The training inherits the descriptor: should only this process be killed, the cell stays
    locked until the training that it left behind has ended.
    """
    descriptor = os.open(cell.folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        yield descriptor
    finally:
        os.close(descriptor)


def work(cell: Cell, held: int) -> bool:
    """Train and probe a cell, or go on with it; whether it is finished now."""
    run = _trained(cell)
    if run is None:
        arguments = ["pretrain", "--config", str(cell.folder / "config.yaml"), "resume=auto"]
    else:
        arguments = ["probe", str(run), "--out", str(run)]
    with (cell.folder / LOG).open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_app", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(held,),
        )
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the terminal interrupted it, too; it ends well
            raise
    run = _trained(cell)
    if code or run is None or not (run / PREDICTIONS).is_file():
        log.error("%s failed; see %s", cell.config.name, cell.folder / LOG)
        return False
    write_json(cell.folder / DONE, {"run": run.name})
    return True


def _trained(cell: Cell) -> Path | None:
    """The cell's run whose encoder is exported; None before."""
    runs = sorted(cell.folder.glob(f"{cell.config.name}-*/{FACTS_FILE}"))
    return runs[-1].parent if runs else None
