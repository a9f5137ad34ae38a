"""Shared parts of all dense tasks between encoder and heads: pyramid, decoder and their blocks."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

GROUPS = 16
CHANNELS_PER_GROUP = 4  # at least: over one channel of a small map, hardly more than a sign is left


def block(width: int) -> nn.Sequential:
    """3 x 3 convolution, group norm (no statistics across tasks), ReLU."""
    conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
    return nn.Sequential(conv, norm(width), nn.ReLU(inplace=True))


def norm(channels: int) -> nn.GroupNorm:
    """Group norm with at most 16 groups of equal size."""
    most = max(1, min(GROUPS, channels // CHANNELS_PER_GROUP))
    return nn.GroupNorm(next(g for g in range(most, 0, -1) if channels % g == 0), channels)


class Neck(nn.Module):
    """Feature pyramid with the same number of channels at every stride.

    T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection" (CVPR 2017). The one map of
    a plain vision transformer is first rescaled to four, as in the simple feature pyramid of Y. Li
    et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ECCV 2022),
    section 3, without its learned up-sampling.

    `channels` and `reductions` are those of the encoder's maps, fine to coarse; every output map
    has `width` channels, and `strides` are their pixels per cell.

    Example:
        >>> import torch
        >>> neck = Neck(channels=[8, 16], reductions=[4, 8], width=4)
        >>> [level.shape[1:] for level in neck([torch.rand(1, 8, 6, 6), torch.rand(1, 16, 3, 3)])]
        [torch.Size([4, 6, 6]), torch.Size([4, 3, 3])]
    """

    factors = (4.0, 2.0, 1.0, 0.5)

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], width: int) -> None:
        super().__init__()
        self.strides = [float(r) for r in reductions]
        self.single = len(channels) == 1
        if self.single:
            self.strides = [reductions[0] / factor for factor in self.factors]
            channels = [channels[0]] * len(self.strides)
        self.width = width
        self.pyramid = FeaturePyramidNetwork(list(channels), width, norm_layer=norm)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Turn the encoder's maps into maps of `width` channels, fine to coarse."""
        if self.single:
            maps = [_rescale(maps[-1], factor) for factor in self.factors]
        out: dict[str, Tensor] = self.pyramid({str(i): m for i, m in enumerate(maps)})
        return list(out.values())

    def level(self, object_px: float, cells: float = 4.0) -> int:
        """Return the map on which an object of this size in pixels spans about `cells` cells."""
        wanted = object_px / cells
        ratios = [max(s / wanted, wanted / s) for s in self.strides]
        return ratios.index(min(ratios))


class Decoder(nn.Module):
    """Sums all pyramid maps of `width` channels at the finest stride.

    The semantic branch of A. Kirillov et al., "Panoptic Feature Pyramid Networks" (CVPR 2019),
    figure 3, with one convolution per level.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(block(width) for _ in range(levels))
        self.fuse = block(width)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Turn maps (n, width, h_i, w_i) into one map (n, width, h_0, w_0)."""
        size = levels[0].shape[-2:]
        total = self.lateral[0](levels[0])
        for lateral, feature_map in zip(list(self.lateral)[1:], levels[1:], strict=True):
            total = total + F.interpolate(
                lateral(feature_map), size, mode="bilinear", align_corners=False
            )
        out: Tensor = self.fuse(total / len(levels))
        return out


def _rescale(feature_map: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return feature_map
    if factor < 1:
        return F.avg_pool2d(feature_map, 2, ceil_mode=True)
    return F.interpolate(feature_map, scale_factor=factor, mode="bilinear")
