"""What went wrong in training, in terms of what to do about it."""

from __future__ import annotations

import re

import torch
from torch.distributed import DistError

from datamodules.core.errors import TrainingError, UserError

_DEVICE = (
    "out of memory on the device; lower data.batch_size or data.tasks_per_batch, or set "
    "model.grad_checkpointing=true"
)
_HOST = "out of memory on the host; lower data.workers, data.batch_size or data.tasks_per_batch"
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? .*\) (?:is killed by signal|exited)")
_SHARED = ("out of shared memory", "No space left on device", "unable to mmap", "shm")
_ALLOCATION = ("can't allocate memory", "Cannot allocate memory", "not enough memory")
_PEER = ("Connection closed by peer", "Connection reset by peer", "gloo/transport", "Broken pipe")


def explained(error: BaseException) -> UserError | None:
    """The error as one line for the user; None where it is no fault that they can mend."""
    text = str(error)
    if isinstance(error, UserError):
        return _without_traceback(error)
    if isinstance(error, torch.OutOfMemoryError):
        return TrainingError(_DEVICE)
    if isinstance(error, MemoryError) or any(part in text for part in _ALLOCATION):
        return TrainingError(_HOST)
    if _WORKER.search(text):
        if "Bus error" in text or any(part in text for part in _SHARED):
            return TrainingError(
                "a loader process found no shared memory; give the container more (docker run "
                "--shm-size), or lower data.workers or data.batch_size"
            )
        return TrainingError(
            f"a loader process was killed, as a rule by the system for {_HOST}, or give the job "
            "more memory"
        )
    if isinstance(error, DistError) or any(part in text for part in _PEER):
        return TrainingError(
            "another process of this run ended or does not answer; its own message says why"
        )
    return None


def _without_traceback(error: UserError) -> UserError:
    """A loader process hands over its error with a traceback before the message."""
    lines = str(error).strip().splitlines()
    if len(lines) < 2:
        return error
    return type(error)(lines[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: "))
