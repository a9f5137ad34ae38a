"""Silence for what libraries say at every start and a user can do nothing about.

What a user needs to know this program says itself; what is not listed here is still shown.
"""

from __future__ import annotations

import logging
import warnings

_LOGGERS = (
    "pytorch_lightning",
    "lightning_fabric",
    "lightning",
    "faster_coco_eval",
    "httpx",
    "httpcore",
    "urllib3",
)
_WARNINGS = (
    # The run's folder holds config.yaml before the CSV logger starts; it deletes only its own file.
    r"Experiment logs directory .* exists and is not empty",
    # Frozen normalisation layers are in eval mode on purpose.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # The module moves and normalises batches for every data module.
    r"You have overridden `(transfer_batch_to_device|on_after_batch_transfer)`",
    # Few workers suit the machine; `speed/waiting_for_data` says whether they suffice.
    r"The '.*dataloader' does not have many workers",
    r"The number of training batches .* is smaller than the logging interval",
    # Lightning's own use of torch.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # 1 x 1 convolutions in channels-last memory: the strides differ in name only.
    r"Grad strides do not match bucket view strides",
    # Heads hand on slices, and nothing is done to them in place.
    r"FSDP2-wrapped module .* returned a view tensor",
    # Without a GPU there is nothing to pin for.
    r"'pin_memory' argument is set as true but no accelerator is found",
)


def hush() -> None:
    """Quiet the libraries of a training run. Their levels are set on import, so import first."""
    import pytorch_lightning  # noqa: F401

    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
