"""Stain jitter on the device, on a whole batch at once.

Colour deconvolution after A. C. Ruifrok and D. A. Johnston, "Quantification of histochemical
staining by color deconvolution", Anal. Quant. Cytol. Histol. 23 (2001), table of
haematoxylin-eosin-DAB vectors; the jitter of each stain by a factor and an offset after D. Tellez
et al., "Whole-slide mitosis detection in H&E breast histology", IEEE TMI 37 (2018), section III.D.
"""

import torch
from torch import Tensor

# Optical density of haematoxylin, eosin and DAB in red, green and blue.
STAINS_TO_RGB = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


def jitter_stain(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change the amount of each stain, image by image.

    In stain space each channel s becomes s * a + b with a in 1 +- strength and b in +- strength
    (natural optical density), which is one 3 x 3 matrix and one offset per image. Images are
    (n, 3, height, width) float32 in [0, 1] before and after; the generator is on the CPU, so that
    all devices draw the same.
    """
    n, _, height, width = images.shape
    draws = torch.rand(2, n, 3, generator=generator).mul_(2 * strength).sub_(strength)
    forward = torch.tensor(STAINS_TO_RGB)
    inverse = torch.linalg.inv(forward)
    # Row vectors: density @ inverse = stains; stains @ forward = density. Here they are columns.
    matrix = ((inverse * (1 + draws[0])[:, None, :]) @ forward).transpose(1, 2)
    offset = (draws[1] @ forward)[:, :, None]
    matrix, offset = (t.to(images.device, non_blocking=True) for t in (matrix, offset))
    density = images.clamp(min=1 / 255).log_().neg_().view(n, 3, height * width)
    changed = torch.baddbmm(offset, matrix, density)
    return changed.neg_().exp_().clamp_(0, 1).view(n, 3, height, width)
