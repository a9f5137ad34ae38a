"""Starting: the command line, and orders and memory that must not grow (goals h and i)."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.timing import Rows, row
from datamodules.stream.sampling import Stream

ROOT = Path(__file__).resolve().parent.parent


def processor_seconds(*arguments: str) -> float:
    """Processor time of a command of the project: the least of three runs."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "lightning_app", *arguments]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def first_step(folder: Path) -> float:
    """Seconds from the start of a training to its end after one step, with stores ready."""
    command = [
        sys.executable, "-m", "lightning_app", "pretrain", "data.forge=12", "data.unseen={}",
        f"data.root={folder}/published", f"data.stores={folder}/stores", f"out={folder}/runs",
        "trainer.epochs=1", "trainer.steps_per_epoch=1", "data.workers=0", "data.val_limit=1",
        "model.weights=random", "wandb.mode=disabled", "trainer.accelerator=cpu",
        "data.image_size=64",
    ]  # fmt: skip
    for _ in range(2):  # the first one writes the stores
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        spent = time.perf_counter() - started
    return spent


def order_of(size: int) -> dict[str, float]:
    """Time of a new pass through so many samples, and the resident memory in MiB after it."""
    stream = Stream((size,), (64,), 1, 0)
    started = time.perf_counter()
    stream.micro_batch(0)
    spent = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": spent, "mib": memory}


def measure(folder: Path) -> Rows:
    """Processor times of starting, and orders of 1e4 and 1e7 samples, each in a fresh process."""
    found = {}
    for size in (10**4, 10**7):
        code = f"import json, benchmarks.starting as s; print(json.dumps(s.order_of({size})))"
        printed = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        found[size] = json.loads(printed)
    grown = found[10**7]["mib"] - found[10**4]["mib"]
    index = np.zeros(10**7, np.int64).nbytes / 2**20
    what = "a training of one step until its end, stores ready, seconds"
    return [
        row("h", "--help, processor seconds", processor_seconds("--help"), 1.0, most=True),
        row("h", "datasets list, processor seconds", processor_seconds("datasets", "list"), 1.0,
            most=True),
        row("h", what, first_step(folder), 15, most=True),
        row("i", "order of 1e7 samples, seconds", found[10**7]["seconds"], 1.0, most=True),
        row("i", "memory from 1e4 to 1e7 samples, in indices of 8 bytes", grown / index, 2.0,
            most=True),
    ]  # fmt: skip
