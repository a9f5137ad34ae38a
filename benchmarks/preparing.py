"""How fast stores are written, by one process and by two, and how much memory that takes.

    PYTHONPATH=. python benchmarks/preparing.py [FOLDER]

Regions: forged MoNuSeg fields of 1000x1000 px with their XML, cut into tiles at 0.5 um/px. JPEG
patches: forged LC25000 images of 768x768 px, scaled to 256 px. One and two processes take turns.
Where other programs have the cores (see the load average), two processes gain nothing: read the
ratio from an idle machine. Memory: PanNuke in its official layout, 2 GB of arrays of random
pixels and instances: the largest sum of the proportional set sizes (PSS) and, shared pages counted
several times, of the resident set sizes (RSS) of the process and
its children. Pages of mapped files count in both.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from datamodules.config import DataConfig, DatasetConfig
from datamodules.prepare import prepare
from datamodules.registry import build
from datamodules.synthetic.forge import forge

HERE = Path(__file__).resolve().parent
ROUNDS = 3
PANNUKE_ROWS = 424  # of 9 channels of 256x256 px in 64-bit floats: 2.0 GB
RESULT = HERE / "results" / "preparing.json"


def main() -> None:
    """Measure everything and write the result."""
    top = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=top) as folder:
        place = Path(folder)
        result = {
            "machine": f"{os.cpu_count()} noisy CPU cores, {platform.machine()}",
            "load_average": [round(load, 1) for load in os.getloadavg()],
            "regions": rates(place, "monuseg", copies=20),
            "jpeg_patches": rates(place, "lc25000", copies=20),
            "pannuke_2gb": memory(place),
        }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def rates(place: Path, name: str, copies: int) -> dict[str, float | int]:
    """Patches per second with one and with two processes, medians of interleaved rounds."""
    dataset = build(name, DatasetConfig(), DataConfig(str(place), str(place / "stores")))
    forge(dataset, 0, 24)
    shutil.rmtree(dataset.root / "annotations", ignore_errors=True)  # each copy is its own image
    for path in [p for p in dataset.root.rglob("*") if p.suffix in (".tif", ".xml", ".jpeg")]:
        for copy in range(1, copies):
            # Names stay such as the publisher's: a number at the end, or within the TCGA barcode.
            stem = f"{path.stem}{copy:02d}" if path.suffix == ".jpeg" else f"{path.stem}-{copy}"
            os.link(path, path.with_name(f"{stem}{path.suffix}"))
    seconds: dict[int, list[float]] = {1: [], 2: []}
    count = 0
    for _ in range(ROUNDS):
        for workers, times in seconds.items():
            dataset.store_path.unlink(missing_ok=True)
            started = time.perf_counter()
            count = prepare(dataset, workers).count
            times.append(time.perf_counter() - started)
    one, two = (count / statistics.median(times) for times in seconds.values())
    ratios = [a / b for a, b in zip(seconds[1], seconds[2], strict=True)]
    shutil.rmtree(dataset.root)
    return {
        "patches": count,
        "per_second_1": round(one, 1),
        "per_second_2": round(two, 1),
        "ratio": round(statistics.median(ratios), 2),
    }


def memory(place: Path) -> dict[str, float | int]:
    """Peak memory of preparing PanNuke with two processes."""
    rows = PANNUKE_ROWS // 3
    rng = np.random.default_rng(0)
    total = 0
    for fold in (1, 2, 3):
        top = place / f"pannuke/Fold {fold}"
        for kind, channels in (("images", 3), ("masks", 6)):
            path = top / kind / f"fold{fold}" / f"{kind}.npy"
            path.parent.mkdir(parents=True)
            shape = (rows, 256, 256, channels)
            array = np.lib.format.open_memmap(path, "w+", np.float64, shape)
            for row in range(rows):
                array[row] = rng.integers(0, 256 if kind == "images" else 40, shape[1:])
            array.flush()
            total += path.stat().st_size
        np.save(top / f"images/fold{fold}/types.npy", np.array(["Breast"] * rows))
    command = [sys.executable, "-m", "lightning_app", "datasets", "prepare", "pannuke"]
    command += ["--root", str(place), "--stores", str(place / "stores"), "--workers", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HERE.parent
    )
    peaks = {"Pss": 0, "Rss": 0, "Pss_Anon": 0}
    while process.poll() is None:
        for field in peaks:
            peaks[field] = max(peaks[field], sum(used(p, field) for p in family(process.pid)))
        time.sleep(0.05)
    assert process.returncode == 0
    megabytes = {f"peak_{k.lower()}_mb": round(v / 1e6) for k, v in peaks.items()}
    return {"arrays_mb": round(total / 1e6), "patches": 3 * rows, **megabytes}


def family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(int(child) for child in children)]


def used(pid: int, field: str) -> int:
    """Bytes of a process's memory, by a field of smaps_rollup."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
