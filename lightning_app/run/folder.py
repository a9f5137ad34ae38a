"""The folder of a run, and the provenance of its results."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.checks.leakage import Card, licence_line, overlap
from datamodules.checks.split_facts import split_warnings
from datamodules.core.errors import ConfigError
from datamodules.reader import DatasetReader
from datamodules.store.attributes import notes_of
from lightning_app.config import Config, save_config

PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "timm", "albumentations"),
    *("scikit-learn", "h5py", "numpy", "wandb"),
)
_CLAIM = ".claim"


@dataclass(frozen=True)
class RunContext:
    """What the parts of a run share.

    Attributes:
        config: the run's configuration.
        folder: the run's folder.
        unseen: the datasets to probe on, prepared.
        origin: provenance of the run.
        started: `time.monotonic()` at the start of the run.
    """

    config: Config
    folder: Path
    unseen: Mapping[str, DatasetReader]
    origin: Mapping[str, Any]
    started: float


def create_run_folder(config: Config) -> Path:
    """Create `<out>/<name>-<time>` and write the resolved configuration into it."""
    name = f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(config.out) / name
    attempt = 1
    while folder.exists():
        attempt += 1
        folder = Path(config.out) / f"{name}-{attempt}"
    folder.mkdir(parents=True)
    save_config(config, folder / "config.yaml")
    return folder


def claim(folder: Path) -> None:
    """Lock a run for as long as this process lives.

    Raises:
        ConfigError: another process holds the lock.
    """
    descriptor = os.open(folder / _CLAIM, os.O_RDWR | os.O_CREAT, 0o666)
    if not _lock(descriptor):
        os.close(descriptor)
        message = "another process is training this run; wait until it ends"
        raise ConfigError(f"resume={folder}: {message}")


def is_claimed(folder: Path) -> bool:
    """Return whether another process works on a run."""
    try:
        descriptor = os.open(folder / _CLAIM, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    # Not flock: loader processes would inherit it and outlive a killed trainer by seconds.
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def provenance(
    config: Config,
    train: Mapping[str, DatasetReader],
    unseen: Mapping[str, DatasetReader],
    elsewhere: Sequence[Card] = (),
) -> dict[str, Any]:
    """Return commit, versions, datasets and licences behind a result; needs the stores.

    Training data of encoders that are only probed here are in `elsewhere`.
    """
    datasets, trained = {**train, **unseen}, list(train.values())
    shared = overlap([*trained, *elsewhere], list(unseen.values()))
    described = {name: {**describe(of), "role": "unseen"} for name, of in unseen.items()}
    for name, dataset in train.items():
        cautions = split_warnings(dataset)
        described[name] = {
            **describe(dataset),
            "role": "train",
            "training_images": len(dataset.rows("train")),
            "cautions": cautions,
        }
    return {
        "title": config.name,
        "synthetic": any(dataset.store.synthetic for dataset in datasets.values()),
        "commit": git_commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "encoder": config.model.encoder,
        "weights": config.model.weights,
        "datasets": {name: described[name] for name in datasets},
        "licence_line": licence_line(trained) if train else "",
        "warnings": [f"not unseen: {sentence}" for sentence in shared],
    }


def describe(dataset: DatasetReader) -> dict[str, Any]:
    """Return the facts of a prepared dataset that a report needs."""
    store = dataset.store
    return {
        "title": dataset.title,
        "licence": dataset.licence,
        "digest": store.digest,
        "images": len(store),
        "groups": len(store.group_names),
        "mpp": store.mpp,
        "synthetic": store.synthetic,
        "tasks": {task.name: str(task.kind) for task in store.tasks},
        "sources": list(dataset.sources),
        "folder": dataset.placed,
        "notes": notes_of(store.attributes).rows(),
    }


def git_commit() -> str:
    """Return the commit, with a plus sign if files differ from it; empty outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changed else "")
