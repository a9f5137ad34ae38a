"""Colour jitter and blur on the device, on a whole batch at once.

The definitions are those of albumentations 2.0 (`ColorJitter`, `GaussianBlur`), which are those of
torchvision. Draws come from a generator on the CPU, so that all devices draw the same, and no
device is waited for. Images are (n, 3, height, width) float32 in [0, 1] before and after.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

GRAY = (0.299, 0.587, 0.114)  # weights of red, green and blue in ITU-R BT.601
COLOR_SHARE = 0.8  # of the images, which change colour
SIGMAS = (0.5, 3.0)  # of the blur in pixels
RADII = (1, 2, 2)  # of its kernels, each equally often


def jitter_color(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of most images, by drawn factors.

    The first three factors are in 1 +- strength, the hue turns by +- strength / 4 of the circle.
    The order of the four is drawn once for the batch.
    """
    n = len(images)
    spans = torch.tensor([strength, strength, strength, strength / 4])
    chosen = torch.rand(n, 1, generator=generator) < COLOR_SHARE
    draws = (2 * torch.rand(n, 4, generator=generator) - 1) * spans * chosen
    draws += torch.tensor([1.0, 1.0, 1.0, 0.0])
    order = torch.randperm(4, generator=generator).tolist()
    return adjust_color(images, draws.to(images.device, non_blocking=True), order)


def adjust_color(images: Tensor, factors: Tensor, order: Sequence[int]) -> Tensor:
    """Apply brightness (0), contrast (1), saturation (2) and hue (3) in an order.

    Factors are (n, 4); 1, 1, 1 and 0 change nothing.
    """
    for step in order:
        factor = factors[:, step, None, None]  # (n, 1, 1), for one channel
        if step == 3:
            images = turn_hue(images, factor)
            continue
        if step == 0:
            images = images * factor[:, None]
        else:
            red, green, blue = (w * c for w, c in zip(GRAY, images.unbind(1), strict=True))
            gray = red + green + blue
            gray = gray.mean((1, 2), keepdim=True) if step == 1 else gray
            images = torch.lerp(gray[:, None], images, factor[:, None])
        images = images.clamp_(0, 1)
    return images


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue by a share of the circle, (n, 1, 1); value and saturation stay (HSV)."""
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    divisor = chroma.clamp(min=1e-8)
    is_red, is_green = value == red, value == green
    sixths = torch.where(
        is_red,
        (green - blue) / divisor,
        torch.where(is_green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    ).add_(6 * turns)
    # A channel is the value less the chroma times a trapezium over the hue.
    channels = []
    for phase in (5, 3, 1):
        place = torch.remainder(sixths + phase, 6)
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp_(0, 1))
    return torch.stack(channels, 1)


def blur_some(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Blur each image with a probability, by a Gaussian of 3 or 5 pixels; changes in place."""
    n = len(images)
    chosen = torch.nonzero(torch.rand(n, generator=generator) < probability).squeeze(1)
    low, high = SIGMAS
    sigmas = low + (high - low) * torch.rand(n, generator=generator)[chosen]
    radii = torch.tensor(RADII)[torch.randint(len(RADII), (n,), generator=generator)[chosen]]
    if len(chosen):
        place = chosen.to(images.device, non_blocking=True)
        kernels = gaussians(sigmas, radii).to(images.device, non_blocking=True)
        images[place] = convolve(images[place], kernels)
    return images


def gaussians(sigmas: Tensor, radii: Tensor) -> Tensor:
    """Return normalised kernels (m, 5), zero beyond their radius."""
    x = torch.arange(-max(RADII), max(RADII) + 1)
    kernels = torch.exp(-0.5 * (x / sigmas[:, None]).square()) * (x.abs() <= radii[:, None])
    return kernels / kernels.sum(1, keepdim=True)


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image with its kernel (m, 5) along both axes, mirrored at the borders.

    Sums of shifted images: a convolution might round to TF32 on a GPU.
    """
    radius = kernels.shape[1] // 2
    for axis, pad in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded, size = F.pad(images, pad, mode="reflect"), images.shape[axis]
        weights = kernels.T[..., None, None, None]  # (5, m, 1, 1, 1)
        shifted = [w * padded.narrow(axis, i, size) for i, w in enumerate(weights)]
        images = torch.stack(shifted).sum(0)
    return images
