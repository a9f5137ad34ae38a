"""Damaged archives, configurations and checkpoints: each a mutation and what reads it."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from omegaconf import OmegaConf

from datamodules.download.extract import unpack
from lightning_app.config import Config, load_config, to_dict
from lightning_app.run.checkpoint_io import newest_readable
from tests.faults.damage import cut, flip
from tests.faults.damaged_stores import Work, opened, same_or, verified

_PACKED = {
    **{".zip": zipfile.ZIP_DEFLATED, ".lzma.zip": zipfile.ZIP_LZMA, ".bz2.zip": zipfile.ZIP_BZIP2},
    **{".tar": "w", ".tar.gz": "w:gz", ".gz": ""},
}


def _archive(place: Path, rng: np.random.Generator) -> tuple[str, Work]:
    files = {f"folder/{n}.bin": rng.bytes(3000) + bytes(3000) for n in range(8)}
    ending = list(_PACKED)[int(rng.integers(len(_PACKED)))]
    path, out, way = place / f"archive{ending}", place / "out", _PACKED[ending]
    if isinstance(way, int):
        with zipfile.ZipFile(path, "w", way) as packed:
            for name, content in files.items():
                packed.writestr(name, content)
    elif way:
        with tarfile.open(path, way) as tar:  # type: ignore[call-overload]
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        files = {"archive": files["folder/0.bin"]}
        path.write_bytes(gzip.compress(files["archive"]))
    change = flip if rng.integers(2) else cut
    path.write_bytes(change(path.read_bytes(), rng))
    out.mkdir()

    def work() -> tuple[str, str]:
        unpack(path, out)
        found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        if ending == ".tar" and change is flip and found.keys() == files.keys() != {}:
            pairs = [(found[name], files[name]) for name in files]
            wrong = sum(a != b for one, other in pairs for a, b in zip(one, other, strict=True))
            if 0 < wrong <= 4:
                return "lawful", "a plain tar has no checksum of its content"
        return same_or(found == files)

    return f"archive {ending} {change.__name__}", work


_VALUES = (
    *(None, "text", -1, 10**400, float("nan"), float("inf"), [], {}, [[1]], {"a": {"b": 1}}, True),
    *("../../x", "${oc.env:HOME}", "${a.b}", "???", 2**32, 2**63, 1e308, "\0", "9" * 5000, ""),
    *(0, 1, 7, 0.5, "1e400", "=1+1", "a\nb", "/etc/passwd", "${data.root}"),
)
_TEXTS = (
    *(
        "[" * 20_000,
        "data: " + "[" * 20_000,
        "a: &a [*a]",
        "seed: 1\nseed: 2",
        "seed: 1\n---\nseed: 2",
    ),
    *(
        "!!python/object/apply:os.getcwd []",
        "seed: !!binary aGVsbG8=",
        "<<: 1",
        "? [a]\n: b",
        "\t- a",
    ),
    *(
        "seed: " + "9" * 5000,
        "seed: 1_0",
        "seed: 0x7",
        "seed: 010",
        "seed: 1:30",
        "- 1",
        "seed",
        "",
    ),
    *("name: no", "name: 2020-01-01", "seed: 1.0", "name: [a", "data:\n  root: ~", "{}"),
    "a: &a [x, x]\n"
    + "".join(f"{n}: &{n} [*{b}, *{b}, *{b}]\n" for b, n in zip("abcdef", "bcdefg", strict=True)),
)


def _config(place: Path, rng: np.random.Generator) -> tuple[str, Work]:
    content = to_dict(Config())
    node, keys = content, []
    while True:
        keys.append(sorted(node)[int(rng.integers(len(node)))])
        if not (isinstance(node[keys[-1]], dict) and node[keys[-1]] and rng.integers(5)):
            break
        node = node[keys[-1]]
    node[keys[-1]] = _VALUES[int(rng.integers(len(_VALUES)))]
    path, way = place / "config.yaml", int(rng.integers(4))
    text = yaml.safe_dump(content, allow_unicode=True)
    if way == 0:
        path.write_bytes((flip if rng.integers(2) else cut)(text.encode(), rng))
    else:
        path.write_text(_TEXTS[int(rng.integers(len(_TEXTS)))] if way == 1 else text)

    def work() -> tuple[str, str]:
        loaded = to_dict(load_config(path))
        stated = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        wrong = _unlike(stated, loaded, "", OmegaConf.create(loaded))
        return ("differs", wrong) if wrong else ("same", "")

    return f"config {('bytes', 'text', 'value', 'value')[way]}", work


def _unlike(stated: Any, loaded: Any, key: str, top: Any) -> str:
    """The first key whose loaded value is not what the file states, references resolved."""
    if isinstance(stated, dict) and isinstance(loaded, dict):
        pairs = [(v, loaded.get(k), f"{key}.{k}") for k, v in stated.items()]
    elif isinstance(stated, list) and isinstance(loaded, list) and len(stated) == len(loaded):
        pairs = [(a, b, f"{key}[{n}]") for n, (a, b) in enumerate(zip(stated, loaded, strict=True))]
    else:
        same = stated == loaded or str(stated) == str(loaded)
        if isinstance(loaded, float) and isinstance(stated, str):
            same = float(stated) == loaded
        if isinstance(loaded, bool) and isinstance(stated, int):
            same = bool(stated) == loaded
        if isinstance(stated, str) and stated.startswith("${"):
            same = OmegaConf.merge(top, {"name": stated}).name == loaded
        return "" if same else f"{key}: {stated!r:.40} is read as {loaded!r:.40}"
    return next(filter(None, (_unlike(*pair, top) for pair in pairs)), "")


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

    def work() -> tuple[str, str]:
        found = newest_readable(place)
        if found is None or found[0] != newest:
            return "refused", "the one before it is taken"
        loaded = torch.load(newest, weights_only=True)
        return same_or(torch.equal(loaded["state_dict"]["w"], torch.arange(500.0) * 2))

    return f"checkpoint {kind}", work


OTHERS: dict[str, Callable[[Path, np.random.Generator], tuple[str, Work]]] = {
    "store": opened,
    "verify": verified,
    "archive": _archive,
    "config": _config,
    "checkpoint": _checkpoint,
}
