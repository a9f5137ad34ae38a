"""From tokens or feature maps to one vector, or one dense map, for each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from datamodules.core.errors import EncoderError

Pool = Literal["cls", "mean", "cls+mean", "stages"]
"""Class token, mean of the patch tokens (without class token and registers), or both in a row.
Of a model with several scales, such as a convnet: the means of its stages' maps in a row."""

POOLS: tuple[str, ...] = get_args(Pool)
DENSE_REDUCTION = 16  # pixels per cell of a convnet's dense map: that of most vision transformers


def split_pool(spec: str) -> tuple[str, Pool | None]:
    """Split "<encoder>@<pool>"; other texts after an @ belong to the encoder.

    Example:
        >>> split_pool("runs/a@cls+mean"), split_pool("hf-hub:a/b@main")
        (('runs/a', 'cls+mean'), ('hf-hub:a/b@main', None))
    """
    encoder, _, pool = spec.rpartition("@")
    return (encoder, cast(Pool, pool)) if encoder and pool in POOLS else (spec, None)


def check_pool(model: nn.Module, pool: Pool, name: str) -> None:
    """Check that a model can be pooled so.

    Raises:
        EncoderError: it has no class token, no tokens, or no stages.
    """
    if pool == "stages":
        if prefix_tokens(model) is not None or not hasattr(model, "forward_intermediates"):
            raise EncoderError(f"{name}@{pool}: it has no stages of several scales; name it alone")
    elif prefix_tokens(model) is None:
        if pool != "mean" or _own_pooling(model) != "avg":
            raise EncoderError(
                f"{name}@{pool}: a model without tokens pools its feature maps in its own way; "
                f"name it without @{pool}"
            )
    elif "cls" in pool and getattr(model, "cls_token", True) is None:
        raise EncoderError(f"{name}@{pool}: it has no class token; name it with @mean")


def pooled(model: nn.Module, images: Tensor, pool: Pool) -> Tensor:
    """Return (n, dim) of normalised images; `check_pool` passed."""
    if pool == "stages":
        maps = _call(model, "forward_intermediates")(
            images, output_fmt="NCHW", intermediates_only=True
        )
        return torch.cat([m.mean((2, 3)) for m in maps if 2 * m.shape[-1] < images.shape[-1]], 1)
    prefix = prefix_tokens(model)
    if prefix is None:
        return cast(Tensor, model(images))
    tokens = _call(model, "forward_features")(images)
    parts = {"cls": tokens[:, 0], "mean": tokens[:, prefix:].mean(1)}
    norm = getattr(model, "fc_norm", None) or nn.Identity()
    return torch.cat([norm(parts[part]) for part in pool.split("+")], dim=-1)


class Pooled(nn.Module):
    """A model with a pooling, for export."""

    def __init__(self, model: nn.Module, pool: Pool) -> None:
        super().__init__()
        self.model, self.pool = model, pool

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, dim)."""
        return pooled(self.model, images, self.pool)


def dense(model: nn.Module, images: Tensor, name: str) -> Tensor:
    """Return a map of features (n, channels, height, width) of normalised images.

    Patch tokens in their grid, or, of a convnet, the deepest map of at most 16 pixels per cell.

    Raises:
        EncoderError: the model has neither.
    """
    prefix = prefix_tokens(model)
    if prefix is not None and not hasattr(model, "forward_intermediates"):
        tokens = _call(model, "forward_features")(images)[:, prefix:]
        side = round(tokens.shape[1] ** 0.5)
        if side * side == tokens.shape[1]:
            return cast(Tensor, tokens.transpose(1, 2).unflatten(2, (side, side)))
    elif hasattr(model, "forward_intermediates"):
        chosen: dict[str, Any] = {} if prefix is None else {"indices": 1, "norm": True}
        maps = _call(model, "forward_intermediates")(
            images, output_fmt="NCHW", intermediates_only=True, **chosen
        )
        fitting = [m for m in maps if images.shape[-1] <= DENSE_REDUCTION * m.shape[-1]]
        if maps and all(m.ndim == 4 for m in maps):
            return cast(Tensor, (fitting or maps)[-1])
    raise EncoderError(f"{name}: gives no map of features, so no dense probe can use it")


def prefix_tokens(model: nn.Module) -> int | None:
    """Return the number of class and register tokens; None for a model without tokens."""
    number = getattr(model, "num_prefix_tokens", None)
    return int(number) if isinstance(number, int) else None


def _own_pooling(model: nn.Module) -> str:
    head = getattr(model, "head", None)
    layer = getattr(model, "global_pool", None) or getattr(head, "global_pool", None)
    return str(getattr(layer, "pool_type", layer))


def _call(model: nn.Module, name: str) -> Callable[..., Any]:
    return cast(Callable[..., Any], getattr(model, name))
