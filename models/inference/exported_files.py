"""The two files of an exported encoder, read and checked in one place."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from datamodules.config import SIDE_MAX
from datamodules.core.errors import WeightsError
from models.inference.export import WEIGHTS_FILE, digest
from models.network.weights import read_safetensors

FORMS = (
    "a run's folder, its .ckpt or .safetensors, FILE.safetensors:TIMM_NAME, imagenet:TIMM_NAME, "
    "random:TIMM_NAME, hf-hub:ORG/NAME, local-dir:FOLDER, a preset (see `encoders list`) or "
    "PRESET:FOLDER; each may end with @cls, @mean, @cls+mean or @stages"
)
"""Every form in which an encoder can be named."""


def exported_weights(path: Path) -> Path:
    """Return the weights file of an export, which has its facts beside it.

    Raises:
        WeightsError: there is none at this path.
    """
    weights = path / WEIGHTS_FILE if path.is_dir() else path
    if weights.with_suffix(".json").is_file():
        return weights
    if weights.is_file() and weights.suffix == ".safetensors":
        raise WeightsError(
            f"encoder {path}: no {weights.with_suffix('.json').name} beside it names its timm "
            f"model; name the model: {weights}:TIMM_NAME"
        )
    hint = f"; did you mean imagenet:{path}?" if timm.is_model(str(path)) else ""
    where = f"no {WEIGHTS_FILE} there" if path.is_dir() else "nothing there"
    raise WeightsError(f"encoder {path}: {where}{hint}; give {FORMS}")


def read_export(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return facts and weights of an export.

    Raises:
        WeightsError: a file is damaged, or they do not belong together.
    """
    facts = read_facts(path.with_suffix(".json"))
    state = read_safetensors(path)
    if digest(state) != facts["digest"]:
        raise WeightsError(
            f"{path}: the weights are not those that {path.stem}.json describes; copy both files "
            "of one export"
        )
    return facts, state


def read_facts(path: Path) -> dict[str, Any]:
    """Read encoder.json.

    Raises:
        WeightsError: it is no JSON, or lacks what the encoder is built with or states it wrongly.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: not an encoder's facts ({reason}); export again") from error
    problem = problem_of(facts, tuple(_FACTS))
    if problem:
        raise WeightsError(f"{path}: not an encoder's facts ({problem}); export again")
    return dict(facts)


def problem_of(facts: Any, keys: Sequence[str]) -> str:
    """Return what is wrong with the first of these facts that does not fit; empty if all do."""
    for key in keys:
        expected, fits = _FACTS[key]
        if not isinstance(facts, Mapping) or (key not in facts and key not in _OPTIONAL):
            return f"no '{key}'"
        if key in facts and not fits(facts[key]):
            return f"{key} is {repr(facts[key])[:100]}, expected {expected}"
    return ""


def _is_whole(value: Any, high: int) -> bool:
    return type(value) is int and 1 <= value <= high


def _are_numbers(values: Any, low: float, high: float) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == 3
        and all(type(v) in (int, float) and low <= v <= high and math.isfinite(v) for v in values)
    )


def _are_arguments(value: Any) -> bool:
    """Whether these are what `build_model` returns; others could name files to load."""
    known = {"dynamic_img_size": lambda v: type(v) is bool, "img_size": _is_side}
    return isinstance(value, dict) and all(k in known and known[k](v) for k, v in value.items())


def _is_side(value: Any) -> bool:
    return _is_whole(value, SIDE_MAX)


def _are_datasets(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(entry, Mapping)
        and isinstance(entry.get("folder", ""), str)
        and isinstance(entry.get("sources", []), list)
        and all(isinstance(source, str) for source in entry.get("sources", []))
        for entry in value.values()
    )


_FACTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "timm_name": ("the name of a timm model", lambda v: isinstance(v, str) and timm.is_model(v)),
    "input_size": (f"a whole number from 1 to {SIDE_MAX}", _is_side),
    "model_kwargs": ("dynamic_img_size or img_size only", _are_arguments),
    "embedding_dim": ("a whole number above 0", lambda v: _is_whole(v, 10**6)),
    "mean": ("three numbers from 0 to 1", lambda v: _are_numbers(v, 0, 1)),
    "std": ("three numbers from 0.001 to 1", lambda v: _are_numbers(v, 1e-3, 1)),
    "interpolation": ("a text", lambda v: isinstance(v, str)),
    "digest": (
        "64 hexadecimal digits",
        lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) is not None,
    ),
    "datasets": ("datasets with text for sources and folders", _are_datasets),
}
_OPTIONAL = ("datasets",)
