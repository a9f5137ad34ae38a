"""Mutations of tables, JSON, XML and spreadsheets; part of `tests.faults.damage`."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
Apply = Callable[[Path, Rng], None]
Lines = Callable[[list[list[str]], Rng], None]


def rewrite(path: Path, content: bytes) -> None:
    """Put new content in place of a file that may be a link."""
    path.unlink()
    path.write_bytes(content)


# ---- tables ------------------------------------------------------------------------------------


def table(change: Lines) -> Apply:
    """Change the cells of a CSV file."""

    def apply(path: Path, rng: Rng) -> None:
        text = path.read_text()
        sign = ";" if ";" in text else ","
        lines = [line.split(sign) for line in text.splitlines()]
        if lines:
            change(lines, rng)
        rewrite(path, "".join(sign.join(line) + "\n" for line in lines).encode())

    return apply


def _row(lines: list[list[str]], rng: Rng) -> int:
    return int(rng.integers(min(1, len(lines) - 1), len(lines)))


def drop(lines: list[list[str]], rng: Rng) -> None:
    """Leave out one line."""
    del lines[_row(lines, rng)]


def repeat(lines: list[list[str]], rng: Rng) -> None:
    """Append one line once more."""
    lines.append(list(lines[_row(lines, rng)]))


def swap_columns(lines: list[list[str]], rng: Rng) -> None:
    """Exchange the first two columns."""
    for line in lines:
        line[:2] = line[1::-1] if len(line) > 1 else line


def extra(lines: list[list[str]], rng: Rng) -> None:
    """Add a column."""
    for number, line in enumerate(lines):
        line.append("remark" if number == 0 else f"n{number}")


def header_case(lines: list[list[str]], rng: Rng) -> None:
    """Write the header in other letters."""
    lines[0][:] = [name.upper() if name.islower() else name.lower() for name in lines[0]]


def cell(pattern: str, put: Callable[[str], str]) -> Lines:
    """Change one cell that matches, below the header where there is one."""

    def change(lines: list[list[str]], rng: Rng) -> None:
        first = 0 if lines[0][0].isdecimal() else 1
        found = [
            (row, column)
            for row, line in enumerate(lines[first:], first)
            for column, text in enumerate(line)
            if re.fullmatch(pattern, text.strip())
        ]
        if found:
            row, column = found[int(rng.integers(len(found)))]
            lines[row][column] = put(lines[row][column])

    return change


# ---- JSON and XML ------------------------------------------------------------------------------


def _nodes(node: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from _nodes(value)


def json_value(fits: type | tuple[type, ...], put: Callable[[Any, Rng], Any]) -> Apply:
    """Change one value of these types."""

    def apply(path: Path, rng: Rng) -> None:
        content = json.loads(path.read_text())
        found = [(node, key) for node, key in _nodes(content) if isinstance(node[key], fits)]
        if found:
            node, key = found[int(rng.integers(len(found)))]
            node[key] = put(node[key], rng)
        rewrite(path, json.dumps(content).encode())

    return apply


def json_drop(path: Path, rng: Rng) -> None:
    """Leave out one key or one member of a list."""
    content = json.loads(path.read_text())
    found = list(_nodes(content))
    node, key = found[int(rng.integers(len(found)))]
    del node[key]
    rewrite(path, json.dumps(content).encode())


def other_type(value: Any, rng: Rng) -> Any:
    """A value of another type."""
    return [None, "text", {"a": 1}, [[]], True][int(rng.integers(5))]


def other_number(value: Any, rng: Rng) -> Any:
    """Another number, which may be valid."""
    return [value + 1, -value - 1, value + 0.5, 10 * value + 10**6, 10**400][int(rng.integers(5))]


def xml_number(put: Callable[[str], str]) -> Apply:
    """Change one number in an attribute."""

    def apply(path: Path, rng: Rng) -> None:
        text = path.read_text()
        numbers = list(re.finditer(r'"([\d.]+)"', text))
        if numbers:
            one = numbers[int(rng.integers(len(numbers)))]
            text = f'{text[: one.start()]}"{put(one[1])}"{text[one.end() :]}'
        rewrite(path, text.encode())

    return apply


# ---- spreadsheets ------------------------------------------------------------------------------

_ROW = r'<row r="\d+">.*?</row>'
_NUMBER = r'<c r="[A-Z]+\d+"><v>\d+</v></c>'


def xlsx(pattern: str, put: Callable[[str], str]) -> Apply:
    """Change one part of the first sheet, below its header; the zip file is sound again."""

    def apply(path: Path, rng: Rng) -> None:
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        sheet = next(name for name in parts if name.endswith("sheet1.xml"))
        text = parts[sheet].decode()
        found = [one for one in re.finditer(pattern, text) if 'r="A1"' not in one[0]]
        if found:
            one = found[int(rng.integers(len(found)))]
            parts[sheet] = f"{text[: one.start()]}{put(one[0])}{text[one.end() :]}".encode()
        path.unlink()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in parts.items():
                file.writestr(name, content)

    return apply


def _value(value: str) -> Callable[[str], str]:
    return lambda text: re.sub(r"<v>.*</v>", f"<v>{value}</v>", text)


def _kind(kind: str, value: str) -> Callable[[str], str]:
    return lambda text: _value(value)(text).replace("><v>", f' t="{kind}"><v>')


def _other_label(text: str) -> str:
    return _value("0")(text) if "<v>1<" in text else _value("1")(text)


XLSX: dict[str, Apply] = {
    "cell text": xlsx(_NUMBER, _kind("str", "many")),
    "cell label": xlsx(_NUMBER, _other_label),
    "cell negative": xlsx(_NUMBER, _value("-1")),
    "cell fraction": xlsx(_NUMBER, _value("0.5")),
    "cell too large": xlsx(_NUMBER, _value("7")),
    "cell empty": xlsx(_NUMBER, _value("")),
    "cell error": xlsx(_NUMBER, _kind("e", "#REF!")),
    "cell date": xlsx(_NUMBER, _kind("d", "2020-01-01")),
    "cell of no text": xlsx(_NUMBER, _kind("s", "99")),
    "cell elsewhere": xlsx(_NUMBER, lambda text: re.sub(r'r="[A-Z]+', 'r="ZZZ', text)),
    "cell twice": xlsx(_NUMBER, lambda text: text + text),
    "cell gone": xlsx(_NUMBER, lambda text: ""),
    "formula without value": xlsx(_NUMBER, lambda text: re.sub(r"<v>.*</v>", "<f>A2</f>", text)),
    "row gone": xlsx(_ROW, lambda text: ""),
    "row twice": xlsx(_ROW, lambda text: text + text),
    "row far away": xlsx(_ROW, lambda text: re.sub(r'row r="\d+', 'row r="99999999', text)),
    "name": xlsx(r"<t>[^<]*</t>", lambda text: "<t>=1+1</t>"),
}
