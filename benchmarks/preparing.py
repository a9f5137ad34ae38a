"""Preparing stores, by one process and by two, against the bare work (goal g).

Regions: forged MoNuSeg fields of 1000x1000 px with their XML, cut into tiles at 0.5 um/px. JPEG
patches: forged LC25000 images of 768x768 px, scaled to 256 px. One process needs about seven
seconds for either, so that the start of others hardly counts. Two processes that share nothing,
each with half of the bare work, show what the machine has to give.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from benchmarks.timing import Rows, rates, ratio, row, seconds
from datamodules.config import DataConfig, DatasetConfig
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.synthetic.forge import forge

ROUNDS = 2
COPIES = {"monuseg": 5, "lc25000": 30}  # of 24 forged images


def measure(folder: Path) -> Rows:
    """Ratios of two processes to one, and of one to the bare work."""
    rows = []
    for name, copies in COPIES.items():
        found = of_dataset(folder, name, copies)
        rows += [
            row("g", f"preparing {name}, one process of bare work", found.pop("of_bare"), 0.8,
                **found),
            row("g", f"preparing {name}, two processes against one", found["of_one"], 1.8),
            row("g", f"preparing {name}, two processes against two halves of the bare work",
                found["of_halves"], 0.8),
        ]  # fmt: skip
    return rows


def halves(dataset: DatasetReader, place: Path) -> None:
    """The bare work by two processes that know nothing of each other."""
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=bare, args=(dataset, place / f"half{first}.h5", first, 2))
        for first in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def bare(dataset: DatasetReader, path: Path, first: int = 0, step: int = 1) -> None:
    """Decode with Pillow, cut and write with h5py, unchecked: what cannot be left out."""
    tasks = dataset.tasks_in(dataset.root)
    tiler, side = dataset.tiler(tasks), dataset.side
    with h5py.File(path, "w") as file:
        shape = (side, side, 3)
        images = file.create_dataset(
            "images", (0, *shape), np.uint8, maxshape=(None, *shape), chunks=(1, *shape)
        )
        for record in islice(dataset.records(dataset.root), first, None, step):
            image = np.asarray(Image.open(record.image).convert("RGB"))
            lazy = {task.name: record.targets[task.name] for task in tasks}
            given = {name: one() if callable(one) else one for name, one in lazy.items()}
            for patch in tiler.cut(image, given, record.mpp or dataset.native_mpp()):
                images.resize(len(images) + 1, axis=0)
                images[-1] = patch.image


def of_dataset(place: Path, name: str, copies: int) -> dict[str, Any]:
    """Patches per second with one and with two processes, medians of interleaved rounds."""
    dataset = build(name, DatasetConfig(), DataConfig(str(place), str(place / "stores")))
    forge(dataset, 0, 24)
    shutil.rmtree(dataset.root / "annotations", ignore_errors=True)  # each copy is its own image
    for path in [p for p in dataset.root.rglob("*") if p.suffix in (".tif", ".xml", ".jpeg")]:
        for copy in range(1, copies):
            # Names stay such as the publisher's: a number at the end, or within the TCGA barcode.
            stem = f"{path.stem}{copy:02d}" if path.suffix == ".jpeg" else f"{path.stem}-{copy}"
            os.link(path, path.with_name(f"{stem}{path.suffix}"))
    counts = []

    def ours(workers: int) -> None:
        dataset.store_path.unlink(missing_ok=True)
        counts.append(prepare(dataset, workers).count)

    times = seconds(
        {
            "bare": lambda: bare(dataset, place / "bare.h5"),
            "halves": lambda: halves(dataset, place),
            "one": lambda: ours(1),
            "two": lambda: ours(2),
        },
        ROUNDS,
    )
    shutil.rmtree(dataset.root)
    return {
        "patches": counts[0],
        "per_second": rates(times, counts[0]),
        "of_bare": ratio(times, "one", "bare"),
        "of_one": ratio(times, "two", "one"),
        "of_halves": ratio(times, "two", "halves"),
    }
