"""The text of a configuration: YAML files and `key=value`, checked before they are parsed."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamodules.core.errors import ConfigError

_DEEPEST, _LONGEST = 30, 3000
_LONG_NUMBER = re.compile(r"[-+.:_0-9a-fA-FxXo]{200,}")
"""Bounds of levels and lengths: parsers recurse by level and crash, and long numbers fit into no
float."""


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        ConfigError: it cannot be read, is no mapping, or leaves a value open that must be set.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _check(text)
        loaded = OmegaConf.load(io.StringIO(text))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not OmegaConf.is_dict(loaded):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    # "???" marks a value that the user must set; merging would hide it.
    missing = sorted(OmegaConf.missing_keys(loaded))
    if missing:
        raise ConfigError(f"{path}: no value for {missing[0]}; set it")
    return loaded


def read_override(text: str) -> Any:
    """Read one `key=value`.

    Raises:
        ConfigError: it has another form.
    """
    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"'{text}': expected key=value, as in data.batch_size=8")
    try:
        if key.count(".") + key.count("[") >= _DEEPEST:
            raise yaml.YAMLError(f"its key has more than {_DEEPEST} levels")
        _check(value)
        return OmegaConf.from_dotlist([text])
    except (OmegaConfBaseException, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"'{shorter(text)}': {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Return OmegaConf's message on one line, with the full key."""
    text = str(error).strip().splitlines()[0]
    key = getattr(error, "full_key", None)
    return f"{key}: {text}" if key else text


def shorter(text: str) -> str:
    """Return the beginning of a long text."""
    return text if len(text) <= 200 else f"{text[:200]}..."


def _check(text: str) -> None:
    """Refuse, event by event and without recursion, what would crash a parser of YAML."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"line {line}: more than {_DEEPEST} levels")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST:
            raise yaml.YAMLError(f"line {line}: a value of more than {_LONGEST} characters")
        if isinstance(event, yaml.ScalarEvent) and _LONG_NUMBER.fullmatch(event.value):
            raise yaml.YAMLError(f"line {line}: a number of more than 200 digits")
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) not in (None, "!"):
            raise yaml.YAMLError(f"line {line}: the tag {event.tag}; leave it out")
