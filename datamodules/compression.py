"""Lossless compression of patches, for who has less disk than processors.

Measured on real H&E patches of 256 px: images take 0.43 of their raw size, about 9 ms to encode and
1.2 ms to decode; reading them raw takes 0.05 ms. Pixels come back as they were.
"""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

_WEBP: dict[str, Any] = {
    "format": "WEBP",
    "lossless": True,
    "exact": True,
    "quality": 20,  # effort, not loss: 5 % larger than effort 50, and seven times faster
    "method": 2,
}
_PNG: dict[str, Any] = {"format": "PNG", "compress_level": 1}


def encode(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode a patch.

    Args:
        pixels: uint8; an image (height, width, 3) becomes WebP, a mask (height, width) PNG.

    Returns:
        uint8 (bytes,).
    """
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, **(_WEBP if pixels.ndim == 3 else _PNG))
    return np.frombuffer(buffer.getvalue(), np.uint8)


def decode(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> bool:
    """Decode what `encode` made into `out`; whether it was whole and of that shape."""
    mode = cv2.IMREAD_COLOR_RGB if out.ndim == 3 else cv2.IMREAD_GRAYSCALE
    pixels = cv2.imdecode(data, mode) if len(data) else None
    if pixels is None or pixels.shape != out.shape:
        return False
    out[:] = pixels
    return True
