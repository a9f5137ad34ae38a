"""Where a sweep's cells are computed: processes of this machine, or a cluster behind joblib."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from joblib import parallel_config
from joblib.parallel import BACKENDS

from datamodules.errors import ProbeError

STREAMING = {"loky", "threading", "multiprocessing", "sequential"}
"""joblib backends that hand out each result when it is ready; others get slices of the work."""

CLUSTERS = {"dask": ("dask.distributed", "distributed"), "ray": ("ray.util.joblib", "ray")}
"""Module and package of the backends that come with another library."""


@contextmanager
def connected(backend: str) -> Iterator[None]:
    """Let `joblib.Parallel` work on a backend, and let go of it afterwards.

    Dask finds its scheduler where DASK_SCHEDULER_ADDRESS says, Ray its cluster where RAY_ADDRESS
    does; without, both start processes on this machine. Workers need this project on their path.

    Args:
        backend: "loky", "threading", ..., "dask", "ray", or one that was registered with joblib.

    Raises:
        ProbeError: joblib knows no such backend, or its library is not installed.
    """
    if backend not in CLUSTERS:
        if backend not in BACKENDS:
            known = ", ".join(sorted({*BACKENDS, *CLUSTERS}))
            raise ProbeError(f"probe.backend={backend}: joblib knows {known}")
        with parallel_config(backend=backend):
            yield
        return
    module, package = CLUSTERS[backend]
    try:
        library: Any = importlib.import_module(module)
    except ImportError as error:
        raise ProbeError(f"probe.backend={backend}: {error}; pip install {package}") from error
    if backend == "ray":
        library.register_ray()
        with parallel_config(backend=backend):
            yield
    else:
        with library.Client(set_as_default=True), parallel_config(backend=backend):
            yield
