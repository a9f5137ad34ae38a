"""The `config` verb: every key of a configuration, and those that a file sets, explained."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from datamodules.core.config_ranges import range_text
from datamodules.registry import reader
from lightning_app.config import Config, load_config
from lightning_app.config_text import read_yaml


@dataclass(frozen=True)
class Key:
    """One key: its full name, its type, default, range and meaning as text."""

    name: str
    kind: str
    default: str
    allowed: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """The keys of one dataclass, and what they set together."""

    prefix: str
    summary: str
    keys: tuple[Key, ...]


def sections(kind: type[Any] = Config, prefix: str = "", also: str = "") -> Iterator[Section]:
    """Return the keys of a dataclass and of the dataclasses in it, in their order."""
    parts = [(one, *_held(one, kind)) for one in fields(kind)]
    own = tuple(_key(one, kind, prefix) for one, held, _ in parts if held is None)
    summary = (inspect.getdoc(kind) or "").splitlines()[0]
    yield Section(prefix.rstrip("."), f"{summary} {also}".rstrip(), own)
    entries: dict[type[Any], list[str]] = {}  # `train` and `unseen` hold the same keys
    for one, held, by_name in parts:
        if held and by_name:
            entries.setdefault(held, []).append(f"{prefix}{one.name}.NAME")
        elif held:
            yield from sections(held, f"{prefix}{one.name}.")
    for held, (first, *others) in entries.items():
        same = f"The same keys stand below {', '.join(others)}." if others else ""
        yield from sections(held, f"{first}.", same)


def explain(path: Path) -> Iterator[tuple[str, str, Key]]:
    """Return each key that a file sets, with its value and what it means.

    Raises:
        ConfigError: the file is not a valid configuration.
    """
    load_config(path)
    loaded: Any = OmegaConf.to_container(read_yaml(path), resolve=True)
    yield from _explained(Config, loaded, "")


def run_config(path: Path | None) -> int:
    """Print all keys, or those of a file; return the exit code."""
    console = Console(highlight=False, markup=False)
    if path is None:
        for section in sections():
            title = section.prefix or "top level"
            console.print(Text(f"{title}: {section.summary}", style="bold"))
            for key in section.keys:
                _print(console, key, f"default {key.default}")
    else:
        found = False
        for _, value, key in explain(path):
            found = True
            same = "the default" if value == key.default else f"default {key.default}"
            _print(console, key, f"set to {value}, {same}")
        if not found:
            console.print(f"{path} sets no key: every default holds")
    return 0


def _print(console: Console, key: Key, value: str) -> None:
    about = "; ".join(filter(None, (value, key.kind, key.allowed)))
    console.print(Text(key.name, style="cyan"))
    for text in (about, key.meaning):
        console.print(Padding(Text(text), (0, 0, 0, 4), expand=False))


def _explained(
    kind: type[Any], node: dict[str, Any], prefix: str
) -> Iterator[tuple[str, str, Key]]:
    by_name = {one.name: one for one in fields(kind)}
    for name, value in node.items():
        one = by_name[name]
        held, many = _held(one, kind)
        if held and many:
            for entry, settings in (value or {}).items():
                yield from _explained(held, settings or {}, f"{prefix}{name}.{entry}.")
        elif held:
            yield from _explained(held, value or {}, f"{prefix}{name}.")
        elif name == "options":
            options = reader(node.get("reader") or prefix.split(".")[-2]).options_type
            yield from _explained(options, value or {}, f"{prefix}{name}.")
        else:
            key = _key(one, kind, prefix)
            yield key.name, _shown(value), key


def _key(one: Field[Any], kind: type[Any], prefix: str) -> Key:
    default = one.default_factory() if one.default_factory is not MISSING else one.default
    meaning = meanings(kind).get(one.name, "")
    hint = get_type_hints(kind)[one.name]
    return Key(prefix + one.name, _kind(hint), _shown(default), range_text(one), meaning)


def meanings(kind: type[Any]) -> dict[str, str]:
    """Return the meaning of each field, from the docstrings of a dataclass and its bases."""
    found: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if is_dataclass(base)]):
        text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for names, meaning in re.findall(
            r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", text, re.MULTILINE
        ):
            found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return found


def _held(one: Field[Any], kind: type[Any]) -> tuple[type[Any] | None, bool]:
    """Return the dataclass that a field holds, if any, and whether it holds several by name."""
    hint = get_type_hints(kind)[one.name]
    by_name = get_origin(hint) is dict
    held = get_args(hint)[1] if by_name else hint
    return (held, by_name) if is_dataclass(held) and isinstance(held, type) else (None, False)


def _kind(hint: Any) -> str:
    """Return a type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(inner)
    if origin is list:
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return f"{_kind(inner[1])} by name"
    if inner:
        return " or ".join("null" if part is NoneType else _kind(part) for part in inner)
    if issubclass(hint, Enum):
        return " or ".join(str(member.value) for member in hint)
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(
        hint, "any"
    )


def _shown(value: Any) -> str:
    """Return a value as YAML writes it, on one line."""
    plain = value.value if isinstance(value, Enum) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()
