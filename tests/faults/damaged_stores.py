"""Damaged stores, opened as for training and by `verify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from datamodules.checks.verify import verify
from datamodules.core.errors import StoreError
from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.images import write_image
from datamodules.prepare import prepare
from datamodules.store.content import ContentDigest
from datamodules.store.reader import Store
from datamodules.store.tiling import Patch
from datamodules.store.writer import write_store
from tests.faults.damage import cut, flip
from tests.support.readers import dataset

Work = Callable[[], tuple[str, str]]
TASKS = (Task("tissue", TaskKind.CLASSIFICATION, ("stroma", "tumour")),)


def opened(place: Path, rng: np.random.Generator) -> tuple[str, Work]:
    """A store that training opens; its pixels are compared with the digest."""
    path = place / "store.h5"
    with write_store(path, TASKS, 16, {"name": "example", "synthetic": True}) as writer:
        for number in range(4):
            pixels = np.full((16, 16, 3), 40 * number, np.uint8)
            patch = Patch(pixels, {"tissue": number % 2}, 0, 0, mpp=0.5)
            writer.add(Record(f"{number}.png", path, {}, "train", f"p{number}"), [patch])
    told = _told(path)
    kind = _damage_store(path, rng)
    return f"store {kind}", lambda: same_or(told == _told(path))


def verified(place: Path, rng: np.random.Generator) -> tuple[str, Work]:
    """A store with boxes that `verify` compares with its raw files."""
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(3)]
    boxes = [
        {"id": 4 * n + k, "image_id": n, "category_id": 1 + k % 2, "bbox": [k, n, 9, 8]}
        for n in range(3)
        for k in range(4)
    ]
    names = [{"id": 1, "name": "tumour cell"}, {"id": 2, "name": "other cell"}]
    root = place / "raw"
    for n in range(3):
        pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
        write_image(root / "images" / f"{n}.png", pixels)
    content = {"images": images, "categories": names, "annotations": boxes}
    (root / "annotations.json").write_text(json.dumps(content))
    reader = dataset("coco_boxes", root, place / "stores", patch_size=32)
    prepare(reader, workers=1)
    told = _told(reader.store_path)
    kind = _damage_store(reader.store_path, rng)

    def work() -> tuple[str, str]:
        report = verify(dataset("coco_boxes", root, place / "stores", patch_size=32), workers=1)
        if not report.ok:
            return "refused", str(report.findings[0])
        try:
            return same_or(told == _told(reader.store_path))
        except StoreError as error:
            return "differs", f"sound, but {error}"

    return f"verify {kind}", work


def _damage_store(path: Path, rng: np.random.Generator) -> str:
    kind = ["flip", "cut", "tail", "attribute", "no attribute", "table"][int(rng.integers(6))]
    if kind in ("flip", "cut"):
        path.write_bytes((flip if kind == "flip" else cut)(path.read_bytes(), rng))
    elif kind == "tail":  # behind the pixels: tables and attributes
        data = path.read_bytes()
        path.write_bytes(data[:-6000] + flip(data[-6000:], rng))
    else:
        with h5py.File(path, "r+") as file:
            if kind == "table":
                _damage_table(file, rng)
            else:
                name = sorted(file.attrs)[int(rng.integers(len(file.attrs)))]
                values = [np.nan, "text", -1, np.zeros((2, 2)), 2**62, b"\xff", h5py.Empty("f")]
                del file.attrs[name]
                if kind == "attribute":
                    file.attrs[name] = values[int(rng.integers(len(values)))]
    return kind


def _damage_table(file: h5py.File, rng: np.random.Generator) -> None:
    """Change, cut, retype or remove one array."""
    names: list[str] = []
    file.visititems(lambda name, node: names.append(name) if hasattr(node, "shape") else None)
    name = names[int(rng.integers(len(names)))]
    array = file[name][()]
    if rng.integers(2) and array.dtype.kind != "S":
        row = int(rng.integers(len(array)))
        file[name][row] = array[row] + 1
        return
    del file[name]
    others = [array[:-1], array[..., None], None, array[::-1], np.zeros(3), "text"]
    other = others[int(rng.integers(len(others)))]
    if other is not None:
        file[name] = other


def _told(path: Path) -> object:
    """Everything that a store says, after comparing the digest with the content, as `verify`."""
    store = Store(path)
    digest = ContentDigest(store.tasks)
    rows = list(range(len(store)))
    images, targets, told = store.images(rows), store.targets_of(rows), []
    for row in rows:
        place = store.split_name(row), store.group_name(row), store.source(row)
        digest.add(*place, images[row], targets[row])
        told.append((*place, store.corner(row)))
    if digest.hexdigest() != store.digest:
        raise StoreError(f"{path}: the digest differs")
    return told, store.digest, store.mpp, store.tasks, store.synthetic


def same_or(same: bool) -> tuple[str, str]:
    """The class of a result that must be what it was."""
    return ("same" if same else "differs"), ""
