"""What reaches the terminal: filters for library messages, and signs that it cannot show.

Messages at every start that a user can do nothing about are filtered; everything else is shown.
"""

from __future__ import annotations

import codecs
import io
import logging
import sys
import warnings

_LOGGERS = (
    *("pytorch_lightning", "lightning_fabric", "lightning"),
    *("faster_coco_eval", "httpx", "httpcore", "httpx2", "httpcore2", "urllib3"),
)
_WARNINGS = (
    # The run's folder holds config.yaml before the CSV logger starts; it deletes only its own file.
    r"Experiment logs directory .* exists and is not empty",
    # Frozen normalisation layers are in eval mode on purpose.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # The module moves and normalises batches for every data module.
    r"You have overridden `(transfer_batch_to_device|on_after_batch_transfer)`",
    # The number of workers fits the machine; `speed/waiting_for_data` shows whether it suffices.
    r"The '.*dataloader' does not have many workers",
    r"The number of training batches .* is smaller than the logging interval",
    # Lightning's own use of torch.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # 1 x 1 convolutions in channels-last memory: the strides differ in name only.
    r"Grad strides do not match bucket view strides",
    # Heads pass slices on and never change them in place.
    r"FSDP2-wrapped module .* returned a view tensor",
    # Without a GPU there is no need for pinned memory.
    r"'pin_memory' argument is set as true but no accelerator is found",
)


_ALIKE = str.maketrans("·µ×−–…→“”", '-ux--.>""')  # noqa: RUF001


def write_alike() -> None:
    """Let both output streams replace what their encoding lacks by a similar ASCII sign."""
    codecs.register_error("alike", _alike)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="alike")


def _alike(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].translate(_ALIKE)
    return lacking.encode("ascii", "backslashreplace").decode(), error.end


def install_log_filters() -> None:
    """Silence these loggers and warnings. Lightning sets levels on import, so import it first."""
    import pytorch_lightning  # noqa: F401

    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
