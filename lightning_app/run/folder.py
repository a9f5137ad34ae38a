"""The folder of a run and what it says about its own origin."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.checks.leakage import Card, licence_line, overlap
from datamodules.core.errors import ConfigError
from datamodules.reader import DatasetReader
from lightning_app.config import Config, save_config

PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "timm",
    "albumentations",
    "scikit-learn",
    "h5py",
    "numpy",
    "wandb",
)
_CLAIM = ".claim"


def create_run_folder(config: Config) -> Path:
    """Make `<out>/<name>-<time>` and write the resolved configuration into it."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path(config.out) / f"{config.name}-{stamp}"
    attempt = 1
    while folder.exists():
        attempt += 1
        folder = Path(config.out) / f"{config.name}-{stamp}-{attempt}"
    folder.mkdir(parents=True)
    save_config(config, folder / "config.yaml")
    return folder


def claim(folder: Path) -> None:
    """Mark a run as worked on by this process, for as long as it lives.

    Raises:
        ConfigError: another process works on it.
    """
    descriptor = os.open(folder / _CLAIM, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # Not flock: loader processes would inherit that and outlive a killed trainer by seconds.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(
            f"resume={folder}: another process is training this run; wait until it ends"
        ) from error


def is_claimed(folder: Path) -> bool:
    """Whether another process works on a run."""
    try:
        descriptor = os.open(folder / _CLAIM, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def provenance(
    config: Config,
    train: Mapping[str, DatasetReader],
    unseen: Mapping[str, DatasetReader],
    elsewhere: Sequence[Card] = (),
) -> dict[str, Any]:
    """Everything that says where a result comes from; needs the stores.

    Args:
        config: everything about the run.
        train: datasets that train the encoder.
        unseen: datasets for probes.
        elsewhere: what encoders that are only probed here were trained on.
    """
    datasets, trained = {**train, **unseen}, list(train.values())
    shared = overlap([*trained, *elsewhere], list(unseen.values()))
    return {
        "title": config.name,
        "synthetic": any(dataset.store.synthetic for dataset in datasets.values()),
        "commit": git_commit(),
        "versions": versions(),
        "encoder": config.model.encoder,
        "weights": config.model.weights,
        "datasets": {
            name: {**describe(dataset), "role": "train" if name in train else "unseen"}
            for name, dataset in datasets.items()
        },
        "licence_line": licence_line(trained) if train else "",
        "warnings": [f"not unseen: {sentence}" for sentence in shared],
    }


def describe(dataset: DatasetReader) -> dict[str, Any]:
    """A prepared dataset in the terms of a report."""
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
    }


def git_commit() -> str:
    """The checked-out commit, with a plus sign where files differ from it; empty outside git."""
    try:
        here = Path(__file__).parent
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changed else "")


def versions() -> dict[str, str]:
    """Python and the packages that decide a result."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return result.stdout.strip()
