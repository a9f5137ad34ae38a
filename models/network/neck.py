"""What all dense tasks share between encoder and heads: pyramid, decoder, detection tower."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

GROUPS = 16
CHANNELS_PER_GROUP = 4
"""At least: of one channel on a map of few cells, group norm leaves hardly more than a sign."""


def block(inputs: int, outputs: int) -> nn.Sequential:
    """3 x 3 convolution, group norm (no statistics across tasks), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), norm(outputs), nn.ReLU(inplace=True)
    )


def norm(channels: int) -> nn.GroupNorm:
    """Group norm with at most 16 groups of one size."""
    most = max(1, min(GROUPS, channels // CHANNELS_PER_GROUP))
    return nn.GroupNorm(next(g for g in range(most, 0, -1) if channels % g == 0), channels)


class Rescale(nn.Module):
    """One scale becomes four: x4, x2, x1 and x1/2 of the last map, by interpolation.

    The simple feature pyramid of Y. Li et al., "Exploring Plain Vision Transformer Backbones for
    Object Detection" (ECCV 2022), section 3, without its learned up-sampling: the pyramid's own
    convolutions follow.
    """

    factors = (4.0, 2.0, 1.0, 0.5)

    def forward(self, feature_map: Tensor) -> list[Tensor]:
        """From (n, channels, h, w) to four maps, fine to coarse."""
        return [
            F.avg_pool2d(feature_map, 2, ceil_mode=True)
            if factor < 1
            else feature_map
            if factor == 1
            else F.interpolate(feature_map, scale_factor=factor, mode="bilinear")
            for factor in self.factors
        ]


class Neck(nn.Module):
    """Feature pyramid with the same number of channels at every stride.

    T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection" (CVPR 2017).

    Args:
        channels, reductions: of the encoder's maps, fine to coarse.
        width: channels of every output map.

    Attributes:
        strides: pixels per cell of each output map.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], width: int) -> None:
        super().__init__()
        self.rescale = Rescale() if len(channels) == 1 else None
        if self.rescale is not None:
            self.strides = [reductions[0] / factor for factor in Rescale.factors]
            channels = [channels[0]] * len(self.strides)
        else:
            self.strides = [float(r) for r in reductions]
        self.width = width
        self.pyramid = FeaturePyramidNetwork(list(channels), width, norm_layer=partial(norm))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """From the encoder's maps to maps of `width` channels, fine to coarse."""
        if self.rescale is not None:
            maps = self.rescale(maps[-1])
        out: dict[str, Tensor] = self.pyramid({str(i): m for i, m in enumerate(maps)})
        return list(out.values())

    def level(self, object_px: float, cells: float = 4.0) -> int:
        """The map on which an object of this size in pixels spans about `cells` cells."""
        wanted = object_px / cells
        ratios = [max(s / wanted, wanted / s) for s in self.strides]
        return ratios.index(min(ratios))


class Decoder(nn.Module):
    """Sums all pyramid maps at the finest stride.

    The semantic branch of A. Kirillov et al., "Panoptic Feature Pyramid Networks" (CVPR 2019),
    figure 3, with one convolution per level.

    Args:
        width: channels in and out.
        levels: number of pyramid maps.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(block(width, width) for _ in range(levels))
        self.fuse = block(width, width)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """From maps (n, width, h_i, w_i) to (n, width, h_0, w_0)."""
        size = levels[0].shape[-2:]
        total = self.lateral[0](levels[0])
        for lateral, feature_map in zip(list(self.lateral)[1:], levels[1:], strict=True):
            total = total + F.interpolate(
                lateral(feature_map), size, mode="bilinear", align_corners=False
            )
        out: Tensor = self.fuse(total / len(levels))
        return out


class Tower(nn.Sequential):
    """Two convolutions that all detection tasks share, at whatever stride.

    Args:
        width: channels in and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__(block(width, width), block(width, width))


def touch(modules: Sequence[nn.Module]) -> Tensor:
    """Zero, with a gradient (of zero) for every trainable parameter of the modules.

    Distributed training waits for a gradient of every parameter, also of those that a
    micro-batch does not use.
    """
    one_each = [
        parameter.reshape(-1)[0].float()
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    return 0.0 * torch.stack(one_each).sum() if one_each else torch.zeros(())
