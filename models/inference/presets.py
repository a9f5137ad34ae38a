"""Public pathology encoders by name: where their weights are and how they are used.

Their facts, and where each was read, are in presets.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from datamodules.core.errors import EncoderError

if TYPE_CHECKING:  # the list is printed without importing torch
    from models.inference.pooling import Pool


@dataclass(frozen=True)
class Preset:
    """Facts of a published encoder.

    Attributes:
        name: how it is named on the command line.
        hub: repository on the Hugging Face hub.
        licence: licence of the weights, as published.
        gated: whether the hub asks to accept terms first; None where sources disagree.
        pool: the pooling that the authors recommend for a label per image.
        dim: length of that vector.
        source: where these facts were read.
        arguments: of `timm.create_model` beside what the hub's config.json holds; layers by name.
        mean, std: of the normalised input.
        input_size: side of the input in pixels; images are scaled to it.
        mpp: recommended resolution in µm/px; None where none was found.
        library: what builds the model.
    """

    name: str
    hub: str
    licence: str
    gated: bool | None
    pool: Pool
    dim: int
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    input_size: int = 224
    mpp: float | None = 0.5
    library: Literal["timm", "transformers"] = "timm"


def _read() -> dict[str, Preset]:
    facts = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    presets = {name: Preset(name, **of_preset) for name, of_preset in facts.items()}
    return {n: replace(p, mean=tuple(p.mean), std=tuple(p.std)) for n, p in presets.items()}


PRESETS = _read()


def find_preset(name: str) -> Preset:
    """Return a preset.

    Raises:
        EncoderError: there is none of this name.
    """
    if name not in PRESETS:
        near = get_close_matches(name.lower(), PRESETS, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(PRESETS)}"
        raise EncoderError(f"encoders show {name}: no such preset; {hint}")
    return PRESETS[name]
