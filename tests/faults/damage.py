"""One mutation of one file of a dataset, as publishers, disks and users produce them.

Files of a case are hard links to the shared twin: a mutation removes the link and writes anew.
What a mutation may change in a store without a word, and why, stands in `tests.faults.lawful`.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from tests.faults import text_damage as text
from tests.faults.text_damage import Apply, rewrite

PIXELS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Mutation:
    """A change of one file; `suffixes` that it fits (none: all)."""

    name: str
    apply: Apply
    suffixes: tuple[str, ...] = ()

    def fits(self, path: Path) -> bool:
        return not self.suffixes or path.suffix.lower() in self.suffixes


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    flipped = bytearray(content)
    for place in rng.integers(0, max(len(flipped), 1), 4 if flipped else 0):
        flipped[place] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(0, max(len(content), 1)))]


def _content(change: Callable[[bytes, np.random.Generator], bytes]) -> Apply:
    return lambda path, rng: rewrite(path, change(path.read_bytes(), rng))


def _nul(content: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(content) + 1))
    return content[:place] + b"\0" + content[place:]


def _swap(path: Path, rng: np.random.Generator) -> None:
    others = sorted(p for p in path.parent.iterdir() if p.is_file() and p.suffix == path.suffix)
    other = others[int(rng.integers(len(others)))]
    if other != path:
        first, second = path.read_bytes(), other.read_bytes()
        rewrite(path, second)
        rewrite(other, first)


def _junk(path: Path, rng: np.random.Generator) -> None:
    place = ["._" + path.name, "Thumbs.db", "__MACOSX/._" + path.name, ".DS_Store"]
    junk = path.parent / place[int(rng.integers(4))]
    junk.parent.mkdir(exist_ok=True)
    junk.write_bytes(b"\0\5\26\7 Mac OS X")


def _dangling(path: Path, rng: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def _looping(path: Path, rng: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _folder_loop(path: Path, rng: np.random.Generator) -> None:
    (path.parent / "again").symlink_to(path.parent, target_is_directory=True)


def _pixels(change: Callable[[Image.Image], Image.Image]) -> Apply:
    def apply(path: Path, rng: np.random.Generator) -> None:
        with Image.open(path) as opened:
            kind, image = opened.format, change(opened.copy())
        held = io.BytesIO()
        try:
            image.save(held, kind)
        except (OSError, ValueError):  # the format has no such mode
            image.save(held, "TIFF")
        rewrite(path, held.getvalue())

    return apply


def _array(change: Callable[[np.ndarray], np.ndarray]) -> Apply:
    def apply(path: Path, rng: np.random.Generator) -> None:
        if path.suffix == ".npy":
            array = change(np.load(path))
            path.unlink()
            np.save(path, array)
            return
        shutil.copy(path, copy := path.with_name("copy.partial"))
        with h5py.File(copy, "r+") as file:
            name = sorted(file)[int(rng.integers(len(file)))]
            array = change(file[name][:])
            del file[name]
            file[name] = array
        copy.replace(path)

    return apply


def _halves(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) + 0.5 if array.dtype.kind in "biuf" else array.astype("S3")


_CSV, _JSON, _XML = (".csv",), (".json",), (".xml",)

FILES = (
    Mutation("truncate", _content(cut), (*PIXELS, ".json", ".xml", ".npy", ".h5", ".xlsx", ".mat")),
    Mutation("truncate table", _content(cut), _CSV),
    Mutation("empty", _content(lambda content, rng: b"")),
    Mutation("flip bits", _content(flip)),
    Mutation("swap contents", _swap),
    Mutation("delete", lambda path, rng: path.unlink()),
    Mutation("rename ending", lambda path, rng: (path.rename(f"{path}.bak"), None)[1]),
    Mutation(
        "duplicate",
        lambda path, rng: (shutil.copy(path, path.with_name(f"copy_{path.name}")), None)[1],
    ),
    Mutation("junk", _junk),
    Mutation("dangling link", _dangling),
    Mutation("looping link", _looping),
    Mutation("folder loop", _folder_loop),
    Mutation("other size", _pixels(lambda i: i.resize((i.width + 7, i.height))), PIXELS),
    Mutation("grey", _pixels(lambda i: i.convert("L")), PIXELS),
    Mutation("CMYK", _pixels(lambda i: i.convert("RGB").convert("CMYK")), PIXELS),
    Mutation("alpha", _pixels(lambda i: i.convert("RGBA")), PIXELS),
    Mutation("16 bit", _pixels(lambda i: i.convert("I;16")), PIXELS),
    Mutation(
        "1 bit", _pixels(lambda i: i.convert("L").point(lambda v: 255 * (v > 0), "1")), PIXELS
    ),
    Mutation("drop line", text.table(text.drop), _CSV),
    Mutation("repeat line", text.table(text.repeat), _CSV),
    Mutation("swap columns", text.table(text.swap_columns), _CSV),
    Mutation("extra column", text.table(text.extra), _CSV),
    Mutation("header case", text.table(text.header_case), _CSV),
    *(
        Mutation(name, text.table(text.cell(pattern, put)), _CSV)
        for name, pattern, put in (
            ("unclosed quote", r".+", lambda c: f'"{c}'),
            ("decimal comma", r"[\d.]+", lambda c: c.replace(".", ",") if "." in c else f"{c},5"),
            ("fraction", r"\d+", lambda c: f"{c}.5"),
            ("other number", r"[\d.]+", lambda c: str(float(c) / 2 if "." in c else int(c) + 1)),
            ("out of range", r"-?[\d.]+", lambda c: "999999"),
            ("negative", r"[\d.]+", lambda c: "-7"),
            ("far negative", r"[\d.]+", lambda c: "-700"),
            ("no number", r"[\d.]+", lambda c: "nan"),
            ("huge number", r"[\d.]+", lambda c: "9" * 5000),
            ("empty cell", r".+", lambda c: ""),
            ("absolute path", r".*[A-Za-z].*", lambda c: "/etc/hosts"),
            ("path upwards", r".*[A-Za-z].*", lambda c: f"../../{c}"),
        )
    ),
    Mutation("NUL", _content(_nul), _CSV),
    Mutation("UTF-16", _content(lambda c, rng: c.decode().encode("utf-16")), (*_CSV, *_JSON)),
    Mutation("Latin-1", _content(lambda c, rng: c.replace(b",", b"\xe9,", 3)), (*_CSV, *_JSON)),
    Mutation("JSON other type", text.json_value(object, text.other_type), _JSON),
    Mutation("JSON NaN", text.json_value((int, float), lambda v, rng: float("nan")), _JSON),
    Mutation("JSON number", text.json_value((int, float), text.other_number), _JSON),
    Mutation("JSON repeat", text.json_value(list, lambda v, rng: v + v[:1]), _JSON),
    Mutation("JSON drop", text.json_drop, _JSON),
    Mutation("JSON deep", _content(lambda c, rng: b"[" * 10**5 + c + b"]" * 10**5), _JSON),
    Mutation("XML text", text.xml_number(lambda number: "many"), _XML),
    Mutation("XML number", text.xml_number(lambda number: str(float(number) + 9)), _XML),
    Mutation("XML far number", text.xml_number(lambda number: "-1e9"), _XML),
    *(Mutation(f"xlsx {name}", apply, (".xlsx",)) for name, apply in text.XLSX.items()),
    Mutation("array type", _array(_halves), (".npy", ".h5")),
    Mutation("array shape", _array(lambda a: a[..., :1]), (".npy", ".h5")),
    Mutation("array rows", _array(lambda a: a[:-1]), (".npy", ".h5")),
)

KEEPERS = {
    ".csv": (
        *("bach", "breastpathq", "conic", "csv_table", "glas", "lc25000", "midogpp", "ocelot"),
        *("pcam", "tupac16", "camelyon17", "lizard", "mhist", "unitopatho"),
    ),
    ".json": ("coco_boxes", "midogpp", "ocelot", "chaoyang"),
    **{".xml": ("monuseg", "monusac"), ".xlsx": ("sicapv2", "bracs")},
    **{".npy": ("conic", "pannuke"), ".h5": ("pcam",), ".mat": ("consep", "lizard", "crchisto")},
}
"""Readers of datasets that keep such files."""
