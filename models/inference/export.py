"""The trained encoder as plain timm weights, in two files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from datamodules.core.atomic import atomic_path, write_text
from datamodules.core.disk_space import require_space
from models.module import MultiTaskModule
from models.network.encoder import Encoder

WEIGHTS_FILE = "encoder.safetensors"
FACTS_FILE = "encoder.json"


def export_encoder(
    source: MultiTaskModule | Encoder, folder: Path, extra: Mapping[str, Any] | None = None
) -> Path:
    """Write `encoder.safetensors` and `encoder.json`.

    The weights have the keys of `timm.create_model(name, num_classes=0, **model_kwargs)`. Both
    files are written atomically, the facts last: where they exist, the export is complete.

    Args:
        source: the module after training, or its encoder.
        folder: created if missing.
        extra: more facts to keep (datasets, licences, scores); plain containers.

    Returns:
        Path of the weights.
    """
    encoder = source if isinstance(source, Encoder) else source.model.encoder
    state = encoder.result()
    facts = {**facts_of(encoder), "digest": digest(state)}
    path = folder / WEIGHTS_FILE
    require_space(path, sum(value.nbytes for value in state.values()))
    with atomic_path(path) as partial:
        # Not safetensors' own function, whose error on a full disk names no file.
        partial.write_bytes(save(state, {"format": "pt", "timm_name": encoder.name}))
        (folder / FACTS_FILE).unlink(missing_ok=True)
    text = json.dumps({**(extra or {}), **facts}, indent=2, default=str)
    write_text(folder / FACTS_FILE, f"{text}\n")
    return path


def facts_of(encoder: Encoder) -> dict[str, Any]:
    """Return how to build the encoder with timm, and how to prepare its input."""
    return {
        "timm_name": encoder.name,
        "model_kwargs": encoder.kwargs,
        "embedding_dim": encoder.embedding_dim,
        "input_size": encoder.input_size,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "interpolation": encoder.interpolation,
        "trained_share": encoder.share,
        "versions": {"timm": timm.__version__, "torch": torch.__version__},
    }


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of all weights, sorted by name."""
    total = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        total.update(f"{key}|{value.dtype}|{tuple(value.shape)}|".encode())
        total.update(value.view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return total.hexdigest()


def described(model: nn.Module) -> str:
    """Return the layers of a model and their settings, which its weights do not tell."""
    how = {"training", "fused_attn", "grad_checkpointing"}  # ways to the same features
    lines = []
    for name, module in model.named_modules():
        settings = {
            key: value
            for key, value in vars(module).items()
            if not key.startswith("_") and key not in how and _is_plain(value)
        }
        lines.append(f"{name} {type(module).__qualname__} {sorted(settings.items())}")
    return "\n".join(lines)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(member) for member in value)
    return isinstance(value, bool | int | float | str | None)
