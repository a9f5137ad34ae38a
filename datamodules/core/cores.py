"""How many processes are worth starting."""

import os


def available_cores() -> int:
    """Return the cores that this process may use, which a batch system may limit."""
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
