"""What every test shares: a quiet environment and, where present, real images."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before anything imports albumentations or wandb: both would go to the network.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("MPLBACKEND", "Agg")
# One thread a process: tests start loaders and ranks, which would fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background jobs ignore Ctrl-C, and programs that a test interrupts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import torch
from hypothesis import HealthCheck, settings

from tests.support.small_disks import Disk, Program

torch.set_num_threads(1)
# A busy machine is slow, which says nothing about a test.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_SAMPLES = REPOSITORY.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-samples",
        default=None,
        metavar="FOLDER",
        help="folder with real sample images (default: $REAL_SAMPLES, else ../shared/data)",
    )
    parser.addoption(
        "--kills",
        type=int,
        default=4,
        help="how often the test of resuming kills its run (default: 4)",
    )


@pytest.fixture(autouse=True)
def stop_wandb_service() -> Iterator[None]:
    """Stop W&B's service after a test that started it: later programs would inherit it."""
    yield
    if "WANDB_SERVICE" in os.environ:
        sys.modules["wandb"].teardown()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes of a session share; what writes there takes a lock."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def forged(shared_folder: Path) -> Callable[..., Path]:
    """`forged(name, images)`: folder of a forged dataset, made once and not to be changed."""
    from datamodules.synthetic.forge import forge
    from tests.support.readers import IMAGES, dataset

    def folder(name: str, images: int = IMAGES) -> Path:
        top = shared_folder / f"forged-{images}"
        reader = dataset(name, top / name, shared_folder / "stores")
        forge(reader, seed=0, images=images)
        return reader.root

    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 30 MB in a folder of its own; skips where nothing may be mounted."""
    disk = Disk(tmp_path / "disk", megabytes=30)
    yield disk
    disk.unmount()


@pytest.fixture(scope="session")
def program() -> Iterator[Program]:
    """Runs commands of the program quickly, one after the other."""
    program = Program()
    yield program
    program.close()


@pytest.fixture(scope="session")
def real_samples(pytestconfig: pytest.Config) -> Path:
    """Folder of real images in their publishers' layouts; skips where there is none.

    A folder that was asked for and is not there is an error, not a skip.
    """
    named = pytestconfig.getoption("--real-samples") or os.environ.get("REAL_SAMPLES")
    folder = Path(named) if named else DEFAULT_SAMPLES
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f"--real-samples / REAL_SAMPLES names {folder}, which is no folder")
    pytest.skip(f"no real samples at {folder}: give --real-samples FOLDER or set REAL_SAMPLES")
