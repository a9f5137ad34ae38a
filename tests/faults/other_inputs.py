"""Damaged stores, archives, configurations and checkpoints: each a mutation and what reads it."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
import yaml

from datamodules.core.errors import StoreError
from datamodules.core.records import Record, Task, TaskKind
from datamodules.download.extract import unpack
from datamodules.store.content import ContentDigest
from datamodules.store.reader import Store
from datamodules.store.tiling import Patch
from datamodules.store.writer import write_store
from lightning_app.config import Config, load_config, to_dict
from lightning_app.run.checkpoint_io import newest_readable
from tests.faults.damage import cut, flip

Work = Callable[[], str]
TASKS = (Task("tissue", TaskKind.CLASSIFICATION, ("stroma", "tumour")),)


def _store(place: Path, rng: np.random.Generator) -> tuple[str, Work]:
    path = place / "store.h5"
    with write_store(path, TASKS, 16, {"name": "example", "synthetic": True}) as writer:
        for number in range(4):
            pixels = np.full((16, 16, 3), 40 * number, np.uint8)
            patch = Patch(pixels, {"tissue": number % 2}, 0, 0, mpp=0.5)
            writer.add(Record(f"{number}.png", path, {}, "train", f"p{number}"), [patch])
    told = _told(path)
    kind = ["flip", "cut", "attribute"][int(rng.integers(3))]
    if kind == "attribute":
        with h5py.File(path, "r+") as file:
            name = sorted(file.attrs)[int(rng.integers(len(file.attrs)))]
            values = [np.nan, "text", -1, np.zeros((2, 2)), 2**62, b"\xff", h5py.Empty("f")]
            file.attrs[name] = values[int(rng.integers(len(values)))]
        kind = f"store attribute {name}"
    else:
        path.write_bytes((flip if kind == "flip" else cut)(path.read_bytes(), rng))
        kind = f"store {kind}"
    return kind, lambda: _same_or(told == _told(path))


def _told(path: Path) -> object:
    """Everything that a store says, after comparing the digest with the content, as `verify`."""
    store, digest = Store(path), ContentDigest(TASKS)
    rows = list(range(len(store)))
    images, targets, told = store.images(rows), store.targets_of(rows), []
    for row in rows:
        place = store.split_name(row), store.group_name(row), store.source(row)
        digest.add(*place, images[row], targets[row])
        told.append((*place, store.corner(row)))
    if digest.hexdigest() != store.digest:
        raise StoreError(f"{path}: the digest differs")
    return told, store.digest, store.mpp, store.tasks, store.synthetic


def _same_or(same: bool) -> str:
    return "same" if same else "differs"


def _archive(place: Path, rng: np.random.Generator) -> tuple[str, Work]:
    files = {f"folder/{n}.bin": rng.bytes(3000) + bytes(3000) for n in range(8)}
    ending = [".zip", ".tar", ".tar.gz"][int(rng.integers(3))]
    path, out = place / f"archive{ending}", place / "out"
    if ending == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in files.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if ending == ".tar.gz" else "w") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    change = flip if rng.integers(2) else cut
    path.write_bytes(change(path.read_bytes(), rng))
    out.mkdir()

    def work() -> str:
        unpack(path, out)
        found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        # A plain tar has no checksum of its content: other bytes in a file cannot be seen.
        if ending == ".tar" and change is flip and len(found) == len(files):
            return "same" if found == files else "lawful"
        return _same_or(found == files)

    return f"archive {ending} {change.__name__}", work


_VALUES = (
    *(None, "text", -1, 10**400, float("nan"), float("inf"), [], {}, [[1]], {"a": {"b": 1}}, True),
    *("../../x", "${oc.env:HOME}", "${a.b}", "???", 2**63, 1e308, "\0", "9" * 5000, ""),
)


def _config(place: Path, rng: np.random.Generator) -> tuple[str, Work]:
    content = to_dict(Config())
    node, keys = content, []
    while True:
        keys.append(sorted(node)[int(rng.integers(len(node)))])
        if not (isinstance(node[keys[-1]], dict) and node[keys[-1]] and rng.integers(5)):
            break
        node = node[keys[-1]]
    number = int(rng.integers(len(_VALUES)))
    node[keys[-1]] = _VALUES[number]
    path = place / "config.yaml"
    text = yaml.safe_dump(content, allow_unicode=True)
    way = int(rng.integers(3))
    if way:
        path.write_text(text)
    else:
        path.write_bytes((flip if rng.integers(2) else cut)(text.encode(), rng))

    def work() -> str:
        load_config(path)
        return "lawful"  # another valid value is a valid value

    return f"config {'value' if way else 'bytes'}", work


def _checkpoint(place: Path, rng: np.random.Generator) -> tuple[str, Work]:
    for step in (1, 2):
        state = {"global_step": step, "state_dict": {"w": torch.arange(500.0) * step}}
        torch.save(state, place / f"step{step:07d}.ckpt")
    newest = place / "step0000002.ckpt"
    before = newest.read_bytes()
    kind = ["flip", "cut", "other", "pickle"][int(rng.integers(4))]
    if kind in ("flip", "cut"):
        newest.write_bytes((flip if kind == "flip" else cut)(before, rng))
    else:
        others = [[1, 2], {"global_step": "x"}, {"global_step": None}, {}, 7, {"a": Path("x")}]
        torch.save(others[int(rng.integers(len(others)))], newest)

    def work() -> str:
        found = newest_readable(place)
        if found is None or found[0] != newest:
            return "refused"
        loaded = torch.load(newest, weights_only=True)
        return _same_or(torch.equal(loaded["state_dict"]["w"], torch.arange(500.0) * 2))

    return f"checkpoint {kind}", work


OTHERS: dict[str, Callable[[Path, np.random.Generator], tuple[str, Work]]] = {
    "store": _store,
    "archive": _archive,
    "config": _config,
    "checkpoint": _checkpoint,
}
