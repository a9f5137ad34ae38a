"""Reading: patches out of a store, of LitData, WebDataset, and folders of images (goal a)."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.patches import GLOBAL, tissue, view
from benchmarks.timing import Rows, rates, ratio, row, seconds
from datamodules.store.reader import Store

BATCHES = 10


def measure(folder: Path, count: int = 500, rounds: int = 3) -> Rows:
    """Rates of reading every patch once in random order, and their ratios."""
    images = tissue(folder, count)
    store = view(folder, "reading", GLOBAL, images).store
    stacked = np.stack(images)
    order = np.random.default_rng(1).permutation(count)
    batches = np.split(order, BATCHES)
    ways: dict[str, Any] = {
        "memcpy": lambda: drain(stacked[part] for part in batches),
        "preadv": lambda: drain(bare(store, part) for part in batches),
        "store": lambda: drain(store.images(part) for part in batches),
    }
    (jpegs := folder / "jpegs").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(jpegs / f"{number}.jpg", quality=95, subsampling=0)
    ways["JPEG folder, Pillow"] = lambda: drain(
        np.asarray(Image.open(jpegs / f"{number}.jpg").convert("RGB")) for number in order
    )
    ways |= peers(folder, jpegs, images, order)
    times = seconds(ways, rounds)
    found = rates(times, count)
    wanted = {"memcpy": 0.3, "preadv": 0.9, "JPEG folder, Pillow": 10.0, "LitData, raw": 3.0}
    rows = [
        row("a", f"store against {name}", ratio(times, "store", name), least, per_second=found)
        for name, least in wanted.items()
        if name in times
    ]
    for row_ in rows[1:]:
        del row_["per_second"]
    return rows


def bare(store: Store, part: np.ndarray) -> np.ndarray:
    """The patches by system calls alone: the limit of whatever does not map the file."""
    batch = np.empty((len(part), store.side, store.side, 3), np.uint8)
    file, offsets = store._opened(), store._offsets["images"]
    for patch, start in zip(batch, offsets[part].tolist(), strict=True):
        os.preadv(file.fileno(), [patch.data], start)
    return batch


def drain(items: Iterable[Any]) -> None:
    """Take all items and keep none."""
    deque(items, maxlen=0)


def peers(folder: Path, jpegs: Path, images: list[np.ndarray], order: np.ndarray) -> dict[str, Any]:
    """Ways of LitData and WebDataset; none of what is not installed."""
    ways: dict[str, Any] = {}
    try:
        import webdataset
        from litdata import StreamingDataset
        from litdata.streaming.writer import BinaryWriter
    except ImportError as error:
        print(f"left out: {error}", file=sys.stderr)
        return ways
    (chunks := folder / "litdata").mkdir()
    writer = BinaryWriter(str(chunks), chunk_bytes="64MB")  # what its optimize() writes with
    for number, image in enumerate(images):
        writer.add_item(number, {"image": image})
    writer.done()
    writer.merge()
    # In random order its default decodes some 66 raw images for each that is asked for.
    for name, window in (("LitData, raw", 0), ("LitData, raw, by default", "auto")):
        dataset = StreamingDataset(str(chunks), shuffle=False, batch_decode=window)
        ways[name] = lambda one=dataset: drain(
            np.stack([one[int(n)]["image"] for n in part]) for part in np.split(order, BATCHES)
        )
    tar = folder / "shard.tar"
    with webdataset.TarWriter(str(tar)) as sink:
        for number in range(len(images)):
            data = (jpegs / f"{number}.jpg").read_bytes()
            sink.write({"__key__": f"{number:06d}", "jpg": data})
    ways["WebDataset, JPEG in sequence"] = lambda: drain(
        sample["jpg"]
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False).decode("rgb8")
    )
    return ways
