"""The shared encoder: a whole timm model that gives pyramid and embedding in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from datamodules.core.errors import ConfigError, EncoderError
from models.config import ModelConfig
from models.network.weights import build_model

PYRAMID_REDUCTIONS = (4, 8, 16, 32)


class EncoderOutput(NamedTuple):
    """Feature maps (n, channels, height, width), fine to coarse, and the embedding (n, dim)."""

    pyramid: list[Tensor]
    embedding: Tensor


class Encoder(nn.Module):
    """A timm model without classifier, whole and unchanged, as `.model`.

    No layer is replaced, so `timm.create_model(name, num_classes=0)` with the exported weights
    gives exactly `embedding`.

    Args:
        config: model, weights and frozen parts.
        image_size: side of the square network input in pixels.

    Attributes:
        channels, reductions: of the pyramid's maps. Models with one scale (plain vision
            transformers) have one entry.
        initial, share: see `interpolate`.
        kwargs: arguments of `timm.create_model` beside the name and `num_classes=0`.

    Raises:
        EncoderError: the model cannot serve as encoder; the message gives the reason.
        WeightsError: its weights are not available.
    """

    def __init__(self, config: ModelConfig, image_size: int) -> None:
        super().__init__()
        self.name = config.encoder
        self.model, self.kwargs = build_model(
            config.encoder, config.weights, image_size, config.drop_path
        )
        facts: dict[str, Any] = self.model.pretrained_cfg  # type: ignore[assignment]
        self.mean: tuple[float, ...] = tuple(facts["mean"])
        self.std: tuple[float, ...] = tuple(facts["std"])
        self.interpolation: str = facts["interpolation"]
        self.input_size = image_size
        self.initial: dict[str, Tensor] = {}
        self.share = 1.0
        self._levels: tuple[int, ...] = ()
        self._single = False
        self.channels, self.reductions, self.embedding_dim = self._probe(image_size)
        self.freeze_norm = config.freeze_norm
        self.frozen = self._freeze_stages(config.freeze_stages)
        if config.grad_checkpointing:
            try:
                self.model.set_grad_checkpointing(True)  # type: ignore[operator]
            except (AttributeError, AssertionError, NotImplementedError) as error:
                raise ConfigError(
                    f"model.grad_checkpointing: {self.name} does not offer it; set it to false"
                ) from error
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if config.compile:
            self.compile()
        self.train()

    def forward(self, images: Tensor) -> EncoderOutput:
        """Encode normalised images (n, 3, height, width) float32."""
        last, maps = self._intermediates(images)
        embedding = self.model.forward_head(last)  # type: ignore[operator]
        return EncoderOutput([maps[i] for i in self._levels], embedding)

    def interpolate(self, share: float) -> None:
        """Let the result lie between the present weights (0) and the trained ones (1).

        M. Wortsman et al., "Robust fine-tuning of zero-shot models" (CVPR 2022), section 3.
        """
        self.share = share
        self.initial = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}

    def result(self) -> dict[str, Tensor]:
        """Return the weights that are exported and probed, by timm's names, on the CPU."""
        state = {k: v.detach().cpu() for k, v in self.model.state_dict().items()}
        for key, initial in self.initial.items():
            if initial.is_floating_point():
                state[key] = torch.lerp(initial, state[key], self.share)
        return {key: value.contiguous().clone() for key, value in state.items()}

    def train(self, mode: bool = True) -> Encoder:
        """Set the mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        for name, module in self.model.named_modules():
            frozen = self.freeze_norm or f"{name}.weight" in self.frozen
            if frozen and isinstance(module, _BatchNorm):
                module.eval()
        return self

    def stages(self) -> dict[str, int]:
        """Return the stage of every parameter: 0 is the stem, the highest number the last."""
        if not hasattr(self.model, "group_matcher"):
            raise EncoderError(
                f"{self.name}: timm does not divide this model into stages; "
                "set model.freeze_stages=0 and optim.layer_decay=1"
            )
        matcher = self.model.group_matcher(coarse=True)  # type: ignore[operator]
        groups = group_with_matcher(self.model.named_parameters(), matcher, reverse=True)
        return {str(name): int(stage) for name, stage in groups.items()}

    @torch.no_grad()
    def norms_of_one_value(self) -> list[str]:
        """Return BatchNorm layers that cannot be trained on a single image.

        They would see one value for each channel, which has no variance.
        """
        found: list[str] = []

        def look(name: str) -> Callable[..., None]:
            return lambda _, args: found.append(name) if args[0][:, 0].numel() == 1 else None

        hooks = [
            module.register_forward_pre_hook(look(name))
            for name, module in self.model.named_modules()
            if isinstance(module, _BatchNorm) and module.training
        ]
        mode = self.training
        self.eval()
        device = next(self.parameters()).device
        last, _ = self._intermediates(torch.zeros(1, 3, *[self.input_size] * 2, device=device))
        self.model.forward_head(last)  # type: ignore[operator]
        self.train(mode)
        for hook in hooks:
            hook.remove()
        return found

    def no_decay(self) -> set[str]:
        """Return the parameters that the model's authors exempt from weight decay."""
        return set(getattr(self.model, "no_weight_decay", set)())

    def _intermediates(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        # A single-scale model contributes only its last map, after the final norm.
        chosen: dict[str, Any] = {"indices": 1, "norm": True} if self._single else {}
        last, maps = self.model.forward_intermediates(  # type: ignore[operator]
            images, output_fmt="NCHW", **chosen
        )
        return last, maps

    @torch.no_grad()
    def _probe(self, size: int) -> tuple[list[int], list[int], int]:
        """Encode one test image to find the pyramid's maps and to check the embedding."""
        if not hasattr(self.model, "forward_intermediates"):
            raise EncoderError(f"{self.name}: has no forward_intermediates; choose another encoder")
        self.model.eval()
        image = torch.full((1, 3, size, size), 0.5)
        image[..., size // 4 : size // 2, size // 4 :] = -1.0
        try:
            _, maps = self._intermediates(image)
            if not maps or any(m.ndim != 4 for m in maps):
                raise ValueError("its intermediate features are not maps")
            scales = {_reduction(m, size) for m in maps}.intersection(PYRAMID_REDUCTIONS)
            self._single = len(scales) < 2
            last, maps = self._intermediates(image)
            embedding = self.model.forward_head(last)  # type: ignore[operator]
            expected = self.model(image)
        except Exception as error:
            # Any of a thousand architectures may fail in its own way.
            raise EncoderError(
                f"{self.name} cannot encode {size} px images: {error}; change data.image_size "
                "or model.encoder"
            ) from error
        if embedding.ndim != 2 or not torch.allclose(embedding, expected, rtol=1e-4, atol=1e-5):
            raise EncoderError(
                f"{self.name}: the pooled intermediate features are not what the plain model "
                "returns, so an export would not reproduce them; choose another encoder"
            )
        kept = {_reduction(m, size): i for i, m in enumerate(maps)}
        if not self._single:
            kept = {reduction: i for reduction, i in kept.items() if reduction in scales}
        self._levels = tuple(kept.values())
        self.model.train()
        return [maps[i].shape[1] for i in self._levels], list(kept), embedding.shape[1]

    def _freeze_stages(self, stages: int) -> set[str]:
        """Freeze the stem and the first `stages` stages; return the names of their parameters."""
        if stages <= 0:
            return set()
        stage_of = self.stages()
        last = max(stage_of.values())
        if stages > last:
            raise ConfigError(f"model.freeze_stages={stages}: {self.name} has {last} stages")
        frozen = {name for name, stage in stage_of.items() if stage <= stages}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name not in frozen)
        return frozen


def _reduction(feature_map: Tensor, size: int) -> int:
    """Return the pixels per cell; the nominal value for maps whose shape was rounded up."""
    cells = feature_map.shape[-1]
    exact = size / cells
    power = 2 ** round(math.log2(exact))
    return power if math.ceil(size / power) == cells else round(exact)
