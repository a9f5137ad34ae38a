"""Tiles per second and memory of `embed` on a slide of 1 gigapixel, against a bare loop; `predict`.

The bare loop reads the same tiles with tifffile's own decoder, one after the other, and gives them
to the same network in the same batches: no tissue, no file, no progress. `predict` runs a small
network with random weights and a head of each kind, so its memory is what counts.

    python -m benchmarks.slides --out benchmarks/results/slides.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENCODER, BATCH = "random:tf_efficientnet_lite0", 32
SIDES = (16, 64)  # tiles of 512 px: 67 megapixels and 1.07 gigapixels


def peak_mb() -> int:
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children) // 1024


def product(path: Path, most: int) -> dict[str, float]:
    import torch

    from datamodules.slides.tiles import Tiling
    from lightning_app.publish.embed import embed
    from lightning_app.publish.image_sources import SlidePatches
    from models.inference.loading import load_encoder

    encoder = load_encoder(ENCODER)
    encoder.embed(torch.zeros(BATCH, 224, 224, 3, dtype=torch.uint8))
    source = SlidePatches(path, Tiling(224, 0.5))
    tiles = source.tiles
    tiles.cells, tiles.corners = tiles.cells[:most], tiles.corners[:most]
    started = time.perf_counter()
    embed(encoder, source, path.with_suffix(".h5"), BATCH, readers=1)
    seconds = time.perf_counter() - started
    return {"tiles": len(source), "tiles_per_s": len(source) / seconds, "peak_mb": peak_mb()}


def bare(path: Path, most: int) -> dict[str, float]:
    import cv2
    import numpy as np
    import torch
    from tifffile import TiffFile

    from datamodules.slides.tiles import SlideTiles, Tiling
    from models.inference.loading import load_encoder

    encoder = load_encoder(ENCODER)
    encoder.embed(torch.zeros(BATCH, 224, 224, 3, dtype=torch.uint8))
    corners = SlideTiles(path, Tiling(224, 0.5)).corners[:most].tolist()
    with TiffFile(path) as file:
        page = file.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        side = page.tilewidth

        def tile(x: int, y: int) -> np.ndarray:
            out = np.full((448, 448, 3), 255, np.uint8)
            for row in range(y // side, (y + 447) // side + 1):
                for column in range(x // side, (x + 447) // side + 1):
                    number = row * across + column
                    if column >= across or number >= len(page.dataoffsets):
                        continue
                    file.filehandle.seek(page.dataoffsets[number])
                    data = file.filehandle.read(page.databytecounts[number])
                    piece = page.decode(data, number)[0][0]
                    left, top = column * side, row * side
                    x0, y0 = max(left, x), max(top, y)
                    x1, y1 = min(left + side, x + 448), min(top + side, y + 448)
                    out[y0 - y : y1 - y, x0 - x : x1 - x] = piece[
                        y0 - top : y1 - top, x0 - left : x1 - left
                    ]
            return cv2.resize(out, (224, 224), interpolation=cv2.INTER_AREA)

        started = time.perf_counter()
        for start in range(0, len(corners), BATCH):
            batch = np.stack([tile(*corner) for corner in corners[start : start + BATCH]])
            encoder.embed(torch.from_numpy(batch))
    seconds = time.perf_counter() - started
    return {"tiles": len(corners), "tiles_per_s": len(corners) / seconds, "peak_mb": peak_mb()}


def predict(path: Path, most: int) -> dict[str, float]:
    from datamodules.slides.tiles import SlideTiles
    from lightning_app.predict.run import Settings, predict_slide
    from models.inference.trained_tasks import TrainedTasks
    from models.module import MultiTaskModule
    from tests.support.synthetic_batches import SPECS, optim, tiny_model

    tasks = TrainedTasks(MultiTaskModule(SPECS, tiny_model(), optim(), 224), path, "cpu")
    settings = Settings(batch_size=BATCH, readers=1)
    tiles = len(SlideTiles(path, settings.tiling(224, 0.5, SPECS)))
    started = time.perf_counter()
    predict_slide(tasks, {0.5: SPECS}, path, path.with_suffix(""), settings)
    seconds = time.perf_counter() - started
    return {"tiles": tiles, "tiles_per_s": tiles / seconds, "peak_mb": peak_mb()}


RUNS = {"bare": bare, "product": product, "predict": predict}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiles", type=int, default=10**6, help="most tiles that are embedded")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--what", nargs="+", choices=RUNS, default=list(RUNS), help="kept: others")
    parser.add_argument("--run", nargs=2, metavar=("WHAT", "SLIDE"))
    options = parser.parse_args()
    if options.run:
        what, path = options.run
        print(json.dumps(RUNS[what](Path(path), options.tiles)))
        return
    from tests.support.slide_files import write_slide

    earlier = options.out and options.out.is_file() and json.loads(options.out.read_text())["rows"]
    results = [row for row in earlier or () if row["what"] not in options.what]
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            path = write_slide(Path(folder) / f"{side}.tif", side, side, 0.25)
            for repeat in range(options.repeats if side == SIDES[-1] else 1):
                kinds = RUNS if side == SIDES[-1] else ("product", "predict")
                for what in [kind for kind in kinds if kind in options.what]:
                    if what == "predict" and repeat:
                        continue
                    command = [sys.executable, "-m", "benchmarks.slides", "--run", what, str(path)]
                    command += ["--tiles", str(options.tiles)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    facts = json.loads(done.stdout.splitlines()[-1])
                    megapixels = round(side * side * 512 * 512 / 1e6)
                    load = os.getloadavg()[0]
                    row = {"what": what, "megapixels": megapixels, "repeat": repeat, **facts}
                    results.append({**row, "load_average": load})
                    print(results[-1], flush=True)
    large = [row for row in results if row["megapixels"] > 1000]
    best = {w: max(r["tiles_per_s"] for r in large if r["what"] == w) for w in ("product", "bare")}
    content = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "encoder": f"{ENCODER}, 224 px, fp32, batches of {BATCH}, one reader process",
        "ratio_of_best": best["product"] / best["bare"],
        "rows": results,
    }
    if options.out:
        options.out.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(content["ratio_of_best"]))


if __name__ == "__main__":
    main()
