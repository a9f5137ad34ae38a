"""From the codes of a published mask to class indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.errors import LayoutError
from datamodules.images import read_mask
from datamodules.records import Mask


@dataclass(frozen=True)
class Codes:
    """What the pixel values of a mask mean; a picklable call target for `functools.partial`.

    Attributes:
        index: class index, or the ignore index, of each published code.
    """

    index: Mapping[int, int]

    def __call__(self, path: Path) -> Mask:
        """Read a mask file and translate it.

        Raises:
            LayoutError: a pixel holds a code that is not published.
        """
        return self.translate(str(path), read_mask(path))

    def translate(self, where: str, mask: Mask) -> Mask:
        """Class index of every pixel, uint8 of the same shape.

        Raises:
            LayoutError: a pixel holds a code that is not published.
        """
        present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
        unknown = [int(code) for code in present if int(code) not in self.index]
        if unknown:
            known = ", ".join(str(code) for code in sorted(self.index))
            raise LayoutError(f"{where}: mask holds code {unknown[0]}, expected one of {known}")
        table = np.zeros(256, np.uint8)
        for code, index in self.index.items():
            table[code] = index
        return table[mask]
