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


START = """
import os, sys
from pathlib import Path
from pytorch_lightning.callbacks import Callback
from lightning_app.config import load_config
from lightning_app.pretrain import assemble

class Stop(Callback):
    def on_train_batch_end(self, *args):
        os._exit(0)

config = load_config(Path("configs/demo.yaml"), sys.argv[1:])
config.data.unseen = {}
run = assemble(config)
run.trainer.callbacks.append(Stop())
run.trainer.fit(run.module, datamodule=run.stream)
"""


def first_step(folder: Path) -> float:
    """Seconds from the start of a training, with imports, to the end of its first micro-batch."""
    settings = [
        f"data.root={folder}/published", f"data.stores={folder}/stores", f"out={folder}/runs",
        "data.forge=12", "data.image_size=64", "model.weights=random", "wandb.mode=disabled",
        "trainer.accelerator=cpu",
    ]  # fmt: skip
    for _ in range(2):  # the first one writes the stores
        started = time.perf_counter()
        command = [sys.executable, "-c", START, *settings]
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
    what = "from imports to the first step of a training, stores ready, seconds"
    return [
        row("h", "--help, processor seconds", processor_seconds("--help"), 1.0, most=True),
        row("h", "datasets list, processor seconds", processor_seconds("datasets", "list"), 1.0,
            most=True),
        row("h", what, first_step(folder), 15, most=True),
        row("i", "order of 1e7 samples, seconds", found[10**7]["seconds"], 1.0, most=True),
        row("i", "memory from 1e4 to 1e7 samples, in indices of 8 bytes", grown / index, 2.0,
            most=True),
    ]  # fmt: skip
