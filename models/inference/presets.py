"""Public pathology encoders by name: where their weights are and how they are used.

Every preset cites where its facts were read: the model's card on the hub ("card"), or, where the
card was not at hand or does not state a fact, the code of a benchmark that loads the model. The
resolution 0.5 µm/px (20x) is the one that TRIDENT's table of encoders names.

Not listed: Hibou (loading it runs Python code from the hub) and GenBio-PathFM (no timm or
transformers model; it has a package of its own).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from datamodules.core.errors import EncoderError

if TYPE_CHECKING:  # the list is printed without importing torch
    from models.inference.pooling import Pool

Three = tuple[float, float, float]


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
    mean: Three = (0.485, 0.456, 0.406)
    std: Three = (0.229, 0.224, 0.225)
    input_size: int = 224
    mpp: float | None = 0.5
    library: Literal["timm", "transformers"] = "timm"


_GATED_MLP = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
_BIOPTIMUS: tuple[Three, Three] = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
_LUNIT: tuple[Three, Three] = (
    (0.70322989, 0.53606487, 0.66096631),
    (0.21716536, 0.26081574, 0.20723464),
)
_HALF: tuple[Three, Three] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_NO_DERIVATIVES = "CC-BY-NC-ND-4.0"
_OWKIN = "Owkin non-commercial"


def _lunit(patch: int) -> Preset:
    return Preset(
        f"lunit-vits{patch}",
        f"1aurent/vit_small_patch{patch}_224.lunit_dino",
        "Lunit non-commercial",
        False,
        "cls",
        384,
        "card (licence); kaiko-ai/eva backbones/pathology/lunit.py (mean, std)",
        mean=_LUNIT[0],
        std=_LUNIT[1],
    )


def _kaiko(name: str, timm_name: str, dim: int, **arguments: Any) -> Preset:
    return Preset(
        f"kaiko-{name}",
        f"1aurent/{timm_name}.kaiko_ai_towards_large_pathology_fms",
        "kaiko non-commercial",
        False,
        "cls",
        dim,
        "card (licence); mahmoodlab/TRIDENT patch_encoder_models/load.py",
        arguments,
        mean=_HALF[0],
        std=_HALF[1],
    )


_ALL = (
    Preset(
        "uni",
        "MahmoodLab/UNI",
        _NO_DERIVATIVES,
        True,
        "cls",
        1024,
        "card; mahmoodlab/TRIDENT patch_encoder_models/load.py",
        {"init_values": 1e-5},
    ),
    Preset(
        "uni2-h",
        "MahmoodLab/UNI2-h",
        _NO_DERIVATIVES,
        True,
        "cls",
        1536,
        "card; mahmoodlab/TRIDENT patch_encoder_models/load.py",
        {
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
            **_GATED_MLP,
        },
    ),
    Preset(
        "virchow",
        "paige-ai/Virchow",
        "Apache-2.0 with terms",
        True,
        "cls+mean",
        2560,
        "card; mahmoodlab/TRIDENT patch_encoder_models/load.py",
        _GATED_MLP,
    ),
    Preset(
        "virchow2",
        "paige-ai/Virchow2",
        _NO_DERIVATIVES,
        True,
        "cls+mean",
        2560,
        "card; kaiko-ai/eva backbones/pathology/paige.py",
        _GATED_MLP,
    ),
    Preset(
        "h-optimus-0",
        "bioptimus/H-optimus-0",
        "Apache-2.0",
        False,
        "cls",
        1536,
        "card",
        {"init_values": 1e-5},
        mean=_BIOPTIMUS[0],
        std=_BIOPTIMUS[1],
    ),
    Preset(
        "h-optimus-1",
        "bioptimus/H-optimus-1",
        _NO_DERIVATIVES,
        True,
        "cls",
        1536,
        "rendeirolab/LazySlide models/vision/h_optimus.py; mahmoodlab/TRIDENT load.py",
        {"init_values": 1e-5},
        mean=_BIOPTIMUS[0],
        std=_BIOPTIMUS[1],
    ),
    Preset(
        "h0-mini",
        "bioptimus/H0-mini",
        _NO_DERIVATIVES,
        True,
        "cls+mean",
        1536,
        "rendeirolab/LazySlide models/vision/h_optimus.py; MICS-Lab/thunder pretrained_models.py",
        _GATED_MLP,
        mpp=None,
        mean=_BIOPTIMUS[0],
        std=_BIOPTIMUS[1],
    ),
    Preset(
        "prov-gigapath",
        "prov-gigapath/prov-gigapath",
        "Apache-2.0 with conditions",
        True,
        "cls",
        1536,
        "card; mahmoodlab/TRIDENT patch_encoder_models/load.py",
    ),
    Preset(
        "phikon",
        "owkin/phikon",
        _OWKIN,
        False,
        "cls",
        768,
        "rendeirolab/LazySlide models/vision/phikon.py; mahmoodlab/TRIDENT load.py",
        {"add_pooling_layer": False},
        library="transformers",
    ),
    Preset(
        "phikon-v2",
        "owkin/phikon-v2",
        _OWKIN,
        False,
        "cls",
        1024,
        "card; mahmoodlab/TRIDENT patch_encoder_models/load.py",
        library="transformers",
    ),
    Preset(
        "midnight",
        "kaiko-ai/midnight",
        "MIT",
        None,
        "cls+mean",
        3072,
        "rendeirolab/LazySlide models/vision/midnight.py; MICS-Lab/thunder pretrained_models.py",
        library="transformers",
        mean=_HALF[0],
        std=_HALF[1],
    ),
    _kaiko("vits16", "vit_small_patch16_224", 384),
    _kaiko("vits8", "vit_small_patch8_224", 384),
    _kaiko("vitb16", "vit_base_patch16_224", 768),
    _kaiko("vitb8", "vit_base_patch8_224", 768),
    _kaiko("vitl14", "vit_large_patch14_reg4_dinov2", 1024, img_size=518),
    _lunit(16),
    _lunit(8),
)

PRESETS = {preset.name: preset for preset in _ALL}


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
