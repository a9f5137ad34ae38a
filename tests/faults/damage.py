"""One mutation of one file of a dataset, as publishers, disks and users produce them.

Files of a case are hard links to the shared twin: a mutation removes the link and writes anew.
`lawful` says when other content in the store is right although nothing was said: "always", or
"image" where the file is a record's image (other pixels are other pixels; a mask is not), or
"loses" where a whole image is gone.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

PIXELS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
Apply = Callable[[Path, np.random.Generator], None]
Lines = Callable[[list[list[str]], np.random.Generator], None]


@dataclass(frozen=True)
class Mutation:
    """A change of one file; `suffixes` that it fits (none: all)."""

    name: str
    apply: Apply
    suffixes: tuple[str, ...] = ()
    lawful: str = ""

    def fits(self, path: Path) -> bool:
        return not self.suffixes or path.suffix.lower() in self.suffixes


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


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


def _table(change: Lines) -> Apply:
    def apply(path: Path, rng: np.random.Generator) -> None:
        lines = [line.split(",") for line in path.read_text().splitlines()]
        if lines:
            change(lines, rng)
        rewrite(path, "\n".join(",".join(line) for line in lines).encode() + b"\n")

    return apply


def _row(lines: list[list[str]], rng: np.random.Generator) -> int:
    return int(rng.integers(min(1, len(lines) - 1), len(lines)))


def _drop(lines: list[list[str]], rng: np.random.Generator) -> None:
    del lines[_row(lines, rng)]


def _repeat(lines: list[list[str]], rng: np.random.Generator) -> None:
    lines.append(list(lines[_row(lines, rng)]))


def _swap_columns(lines: list[list[str]], rng: np.random.Generator) -> None:
    for line in lines:
        line[:2] = line[1::-1] if len(line) > 1 else line


def _extra(lines: list[list[str]], rng: np.random.Generator) -> None:
    for number, line in enumerate(lines):
        line.append("remark" if number == 0 else f"n{number}")


def _header_case(lines: list[list[str]], rng: np.random.Generator) -> None:
    lines[0][:] = [name.upper() if name.islower() else name.lower() for name in lines[0]]


def _cell(pattern: str, put: Callable[[str], str]) -> Lines:
    """Change one cell that matches below the header, of a column that names no identity."""

    def change(lines: list[list[str]], rng: np.random.Generator) -> None:
        free = re.compile(
            r"patient|slide|case|group|fold|cluster|wsi|patch_info|\bid\b", re.IGNORECASE
        )
        found = [
            (row, column)
            for row, line in enumerate(lines[1:], 1)
            for column, cell in enumerate(line)
            if re.fullmatch(pattern, cell.strip())
            and not (column < len(lines[0]) and free.search(lines[0][column]))
        ]
        if found:
            row, column = found[int(rng.integers(len(found)))]
            lines[row][column] = put(lines[row][column])

    return change


def _nodes(node: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from _nodes(value)


def _json(fits: type | tuple[type, ...], put: Callable[[Any, np.random.Generator], Any]) -> Apply:
    def apply(path: Path, rng: np.random.Generator) -> None:
        content = json.loads(path.read_text())
        found = [(node, key) for node, key in _nodes(content) if isinstance(node[key], fits)]
        if found:
            node, key = found[int(rng.integers(len(found)))]
            node[key] = put(node[key], rng)
        rewrite(path, json.dumps(content).encode())

    return apply


def _other_type(value: Any, rng: np.random.Generator) -> Any:
    return [None, "text", {"a": 1}, [[]], True][int(rng.integers(5))]


def _xml_text(path: Path, rng: np.random.Generator) -> None:
    text = path.read_text()
    numbers = list(re.finditer(r'"[\d.]+"', text))
    if numbers:
        one = numbers[int(rng.integers(len(numbers)))]
        text = f'{text[: one.start()]}"many"{text[one.end() :]}'
    rewrite(path, text.encode())


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


FILES = (
    Mutation("truncate", _content(cut), (*PIXELS, ".json", ".xml", ".npy", ".h5", ".xlsx")),
    Mutation("truncate table", _content(cut), (".csv",), "always"),  # a shorter list is a list
    Mutation("empty", _content(lambda content, rng: b"")),
    Mutation("flip bits, checksum", _content(flip), (".png", ".xlsx")),
    Mutation("flip bits", _content(flip), lawful="always"),
    Mutation("swap contents", _swap, lawful="always"),
    Mutation("delete", lambda path, rng: path.unlink(), lawful="loses"),
    Mutation("rename ending", lambda path, rng: (path.rename(f"{path}.bak"), None)[1]),
    Mutation(
        "duplicate",
        lambda path, rng: (shutil.copy(path, path.with_name(f"copy_{path.name}")), None)[1],
        lawful="image",
    ),
    Mutation("junk", _junk),
    Mutation("dangling link", _dangling),
    Mutation("looping link", _looping),
    Mutation("folder loop", _folder_loop),
    Mutation("other size", _pixels(lambda i: i.resize((i.width + 7, i.height))), PIXELS, "image"),
    Mutation("grey", _pixels(lambda i: i.convert("L")), PIXELS, "image"),
    Mutation("CMYK", _pixels(lambda i: i.convert("RGB").convert("CMYK")), PIXELS, "image"),
    Mutation("alpha", _pixels(lambda i: i.convert("RGBA")), PIXELS),
    Mutation("16 bit", _pixels(lambda i: i.convert("I;16")), PIXELS),
    Mutation(
        "1 bit",
        _pixels(lambda i: i.convert("L").point(lambda v: 255 * (v > 0), "1")),
        PIXELS,
        "image",
    ),
    Mutation("drop line", _table(_drop), (".csv",), "always"),
    Mutation("repeat line", _table(_repeat), (".csv",)),
    Mutation("swap columns", _table(_swap_columns), (".csv",), "headless"),
    Mutation("extra column", _table(_extra), (".csv",)),
    Mutation("header case", _table(_header_case), (".csv",)),
    Mutation("unclosed quote", _table(_cell(r".+", lambda c: f'"{c}')), (".csv",)),
    Mutation("decimal comma", _table(_cell(r"\d+", lambda c: f"{c},5")), (".csv",)),
    Mutation("fraction", _table(_cell(r"\d+", lambda c: f"{c}.5")), (".csv",), "headless"),
    Mutation("out of range", _table(_cell(r"-?\d+", lambda c: "999999")), (".csv",)),
    Mutation("negative", _table(_cell(r"\d+", lambda c: "-7")), (".csv",)),
    Mutation("absolute path", _table(_cell(r".*[A-Za-z].*", lambda c: "/etc/hosts")), (".csv",)),
    Mutation("path upwards", _table(_cell(r".*[A-Za-z].*", lambda c: f"../../{c}")), (".csv",)),
    Mutation("NUL", _content(_nul), (".csv",)),
    Mutation("UTF-16", _content(lambda c, rng: c.decode().encode("utf-16")), (".csv", ".json")),
    Mutation("Latin-1", _content(lambda c, rng: c.replace(b",", b"\xe9,", 3)), (".csv", ".json")),
    Mutation("JSON other type", _json(object, _other_type), (".json",), "always"),
    Mutation("JSON NaN", _json((int, float), lambda v, rng: float("nan")), (".json",), "always"),
    Mutation("JSON repeat", _json(list, lambda v, rng: v + v[:1]), (".json",), "always"),
    Mutation("XML text", _xml_text, (".xml",)),
    Mutation("array type", _array(_halves), (".npy", ".h5")),
    Mutation("array shape", _array(lambda a: a[..., :1]), (".npy", ".h5")),
    Mutation("array rows", _array(lambda a: a[:-1]), (".npy", ".h5")),
)
