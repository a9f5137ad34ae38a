"""Checkpoints on disk: written whole or not at all, found again, and checked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from datamodules.core.atomic import atomic_path
from datamodules.core.errors import TrainingError

log = logging.getLogger(__name__)

LAST = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final place, flushes to the disk and renames.

    Lightning's own writes into the system's temporary folder first, which can be another, smaller
    disk; moving from there is a copy that a kill leaves half done.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            TrainingError: the disk takes no more; older checkpoints are as they were.
        """
        path = Path(path)
        try:
            with atomic_path(path, unique=False) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # torch wraps what the system says in errors of its own.
            older = checkpoints_in(path.parent)
            left = f"{older[0]} is intact" if older else "there is no older one"
            run = path.parent.parent
            raise TrainingError(
                f"{path}: the checkpoint cannot be written ({_system_reason(error)}); {left}. "
                f"Make room and go on with resume={run}"
            ) from error


def checkpoints_in(folder: Path) -> list[Path]:
    """All checkpoints of a folder, the newest first."""
    return sorted(folder.glob("step*.ckpt"), reverse=True)


def newest_readable(folder: Path) -> tuple[Path, int] | None:
    """The newest checkpoint that can be read, and the optimizer steps behind it.

    Damaged ones are renamed, so that nothing takes them for good again.

    Returns:
        None where training never came to a checkpoint.

    Raises:
        TrainingError: there are some and all are damaged.
    """
    found = checkpoints_in(folder)
    problem = ""
    for path in found:
        try:
            steps = optimizer_steps(path)
        except TrainingError as error:
            problem = str(error)
            log.warning("%s; going on from an older one", problem)
            path.rename(path.with_name(f"{path.name}.damaged"))
            continue
        return path, steps
    if found:
        raise TrainingError(f"{problem}, and there is no older one; start a new run")
    return None


def optimizer_steps(path: Path) -> int:
    """Optimizer steps behind a checkpoint.

    Raises:
        TrainingError: the file is damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return int(content["global_step"])
    except Exception as error:
        # torch reports damage in many ways; the cause is in the message.
        reason = " ".join(str(error).split())[:160]
        raise TrainingError(f"{path}: cannot be read ({reason})") from error


def _system_reason(error: BaseException) -> str:
    """What the system said, behind whatever torch made of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split())[:160]
