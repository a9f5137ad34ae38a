"""Checkpoint files: written atomically, found and checked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from datamodules.core.atomic import atomic_path
from datamodules.core.disk_space import require_space
from datamodules.core.errors import TrainingError, UserError
from models.training.serialization import check_sums, read_checkpoint

log = logging.getLogger(__name__)

LAST = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final place, flushes it to the disk and renames it.

    Lightning writes into the system's temporary folder first, which may be on another, smaller
    disk; a kill during the copy from there leaves half a file.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            TrainingError: the disk is full, not writable or broken; older checkpoints are intact.
        """
        path = Path(path)
        try:
            require_space(path, _bytes_in(checkpoint))
            with atomic_path(path, unique=False) as partial:
                with partial.open("wb") as file:
                    torch.save(checkpoint, file)
                check_sums(partial)
        except (OSError, RuntimeError, UserError, BadZipFile) as error:
            older = checkpoints_in(path.parent)
            intact = f"{older[0]} is intact" if older else "there is no older one"
            reason = _system_reason(error).removeprefix(f"{path}: ")
            raise TrainingError(
                f"{path}: the checkpoint cannot be written ({reason}); {intact}. "
                f"Free disk space and continue with resume={path.parent.parent}"
            ) from error


def checkpoints_in(folder: Path) -> list[Path]:
    """Return all checkpoints of a folder, the newest first."""
    return sorted(folder.glob("step*.ckpt"), reverse=True)


def newest_readable(folder: Path) -> tuple[Path, int] | None:
    """Return the newest readable checkpoint and its optimizer steps; None if there is no file.

    A damaged checkpoint is renamed, so that no later run tries it again.

    Raises:
        TrainingError: there are checkpoints, and all are damaged.
    """
    problem = ""
    for path in checkpoints_in(folder):
        try:
            return path, int(read_checkpoint(path)["global_step"])
        except (TrainingError, KeyError, TypeError, ValueError) as error:
            problem = str(error) if isinstance(error, TrainingError) else f"{path}: no checkpoint"
            log.warning("%s; trying an older one", problem)
            path.rename(path.with_name(f"{path.name}.damaged"))
    if problem:
        raise TrainingError(f"{problem}, and there is no older one; start a new run")
    return None


def _bytes_in(content: Any) -> int:
    """Return the bytes of all tensors in nested containers."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    inner = content.values() if isinstance(content, dict) else content
    return sum(_bytes_in(item) for item in inner) if isinstance(content, dict | list | tuple) else 0


def _system_reason(error: BaseException) -> str:
    """Return the operating system's message, which torch wraps in errors of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split())[:400]
