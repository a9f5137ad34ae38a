"""Steps that follow the export of the encoder, none of which may cost it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def later_step(name: str, verb: str) -> Iterator[None]:
    """Log a failure of what follows the export, and the command that does it again.

    The encoder is on the disk by then, and a picture or a dashboard must not cost it.
    """
    try:
        yield
    except Exception as error:  # whatever a disk, a font or a service raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        log.error("%s failed: %s; again: python -m lightning_app %s", name, reason, verb)
