"""Translates failures of training into one line with a remedy."""

from __future__ import annotations

import re

import torch
from torch.distributed import DistError

from datamodules.core.errors import TrainingError, UserError

_HOST = "out of memory on the host; lower data.workers, data.batch_size or data.tasks_per_batch"
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? .*\) (?:is killed by signal|exited)")
_SHARED = re.compile("Bus error|out of shared memory|No space left on device|unable to mmap|shm")
_ALLOCATION = re.compile("[Cc]an(?:no|.)t allocate memory|not enough memory")
_PEER = re.compile("Connection (?:closed|reset) by peer|gloo/transport|Broken pipe")


def explain(error: BaseException) -> UserError | None:
    """Return the error as one line for the user; None if it is not the user's to fix."""
    text = str(error)
    if isinstance(error, UserError):
        return _without_traceback(error)
    if isinstance(error, torch.OutOfMemoryError):
        message = (
            "out of memory on the device; lower data.batch_size or data.tasks_per_batch, or set "
            "model.grad_checkpointing=true"
        )
    elif isinstance(error, MemoryError) or _ALLOCATION.search(text):
        message = _HOST
    elif _WORKER.search(text) and _SHARED.search(text):
        message = (
            "a loader process ran out of shared memory; give the container more (docker run "
            "--shm-size), or lower data.workers or data.batch_size"
        )
    elif _WORKER.search(text):
        message = (
            f"a loader process was killed, usually by the system for {_HOST}, or give the job "
            "more memory"
        )
    elif isinstance(error, DistError) or _PEER.search(text):
        message = (
            "another process of this run ended or does not answer; its own message gives the reason"
        )
    else:
        return None
    return TrainingError(message)


def _without_traceback(error: UserError) -> UserError:
    """Drop the traceback that a loader process puts before the message of its error."""
    lines = str(error.args[0]).strip().splitlines()  # str() has it on one line
    if len(lines) < 2:
        return error
    return type(error)(lines[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: "))
