"""Models of presets, built by timm or transformers from the hub or from a local folder."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.layers.mlp import SwiGLUPacked
from torch import Tensor, nn

from datamodules.core.errors import WeightsError
from models.inference.hub_access import WEIGHT_FILES, how_to_get
from models.inference.presets import Preset
from models.network.weights import check_hub, from_source, whole

_LAYERS: Mapping[str, Any] = {"SwiGLUPacked": SwiGLUPacked, "SiLU": nn.SiLU}


def build_preset(preset: Preset, folder: Path | None = None) -> nn.Module:
    """Build a preset's model with its weights.

    Args:
        preset: which.
        folder: a local copy of its repository; None for the hub, or its cache on this machine.

    Raises:
        WeightsError: the weights or a package are missing, the hub refuses, or they do not fit.
    """
    if folder is not None:
        _check_folder(preset, folder)
    remedy = f"; {how_to_get(preset)}"
    if preset.library == "transformers":
        return _Transformer(preset, folder, remedy)
    spec = f"local-dir:{folder}" if folder is not None else f"hf-hub:{preset.hub}"
    return from_source(spec, layers_of(preset), remedy)


def layers_of(preset: Preset) -> dict[str, Any]:
    """Return the arguments of `timm.create_model`, with classes for the names of layers."""
    named = preset.arguments.items()
    return {k: _LAYERS[v] if k.endswith("_layer") else v for k, v in named}


def preset_facts(preset: Preset, model: nn.Module) -> dict[str, Any]:
    """Return the facts of a preset that a frozen encoder needs."""
    architecture: Any = model.pretrained_cfg
    return {
        "timm_name": architecture.get("architecture", ""),
        "input_size": preset.input_size,
        "mean": preset.mean,
        "std": preset.std,
        "interpolation": "bicubic",
        "rescale": True,
        "preset": preset.name,
    }


def _check_folder(preset: Preset, folder: Path) -> None:
    for names in (("config.json",), WEIGHT_FILES):
        if not any((folder / name).is_file() for name in names):
            raise WeightsError(
                f"encoder {preset.name}:{folder}: holds no {' or '.join(names)}; fetch the whole "
                f"repository: `hf download {preset.hub} --local-dir {folder}`"
            )


class _Transformer(nn.Module):
    """A transformers model with the interface that pooling needs of timm's."""

    def __init__(self, preset: Preset, folder: Path | None, remedy: str) -> None:
        super().__init__()
        if importlib.util.find_spec("transformers") is None:
            raise WeightsError(
                f"encoder {preset.name}: only the package transformers loads it; install it with "
                '`make install EXTRAS="offline-weights dev transformers"`'
            )
        library: Any = importlib.import_module("transformers")
        library.utils.logging.disable_progress_bar()
        try:
            if folder is None:
                check_hub(preset.hub)
            # Never code from the hub: trust_remote_code stays off.
            self.trunk = library.AutoModel.from_pretrained(
                folder or preset.hub, dtype=torch.float32, **preset.arguments
            )
        except Exception as error:  # config.json decides what runs, so any error is possible
            raise WeightsError(f"encoder {preset.name}: {whole(error)}{remedy}") from error
        config = self.trunk.config
        self.num_prefix_tokens = 1 + int(getattr(config, "num_register_tokens", 0))
        self._options = {"interpolate_pos_encoding": True} if config.model_type == "vit" else {}
        self.pretrained_cfg = {"architecture": f"transformers {config.model_type}"}

    def forward_features(self, images: Tensor) -> Tensor:
        """Return all tokens (n, tokens, dim)."""
        tokens: Tensor = self.trunk(pixel_values=images, **self._options).last_hidden_state
        return tokens

    def forward(self, images: Tensor) -> Tensor:
        """Return the class token (n, dim)."""
        return self.forward_features(images)[:, 0]
