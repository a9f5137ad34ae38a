"""Colour of synthetic slides: two stains after Beer and Lambert, and how laboratories differ."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.canvas import Map

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Stain:
    """Hematoxylin and eosin on one slide under one scanner.

    A stain has an optical density per channel (red, green, blue). The default hematoxylin is the
    vector widely reused with Macenko et al., ISBI 2009; the default eosin has less blue density,
    which meets the mean colour of stroma in CRC-VAL-HE-7K.
    """

    hematoxylin: Vector = (0.5626, 0.7201, 0.4062)
    eosin: Vector = (0.20, 0.87, 0.45)
    strengths: Vector = (0.78, 1.0)  # how strongly this slide took the two stains
    white: Vector = (0.955, 0.945, 0.955)  # light through empty glass, 0 to 1 per channel
    noise: float = 2.0  # standard deviation of the sensor's noise in grey levels

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Stain:
        """A plausible slide: another day, another laboratory, another scanner."""
        light = rng.uniform(0.90, 0.99) + rng.normal(0.0, 0.010, 3)
        return cls(
            hematoxylin=_turned(rng, cls.hematoxylin, 0.045),
            eosin=_turned(rng, cls.eosin, 0.065),
            strengths=tuple(cls.strengths * np.exp(rng.normal(0.0, (0.16, 0.22)))),
            white=tuple(light.clip(0.85, 1.0)),
            noise=rng.uniform(1.0, 3.0),
        )

    def develop(self, rng: np.random.Generator, amounts: list[Map]) -> NDArray[np.uint8]:
        """Turn the amounts of the two stains, (height, width), into RGB, (height, width, 3)."""
        vectors = np.transpose([self.hematoxylin, self.eosin]) * self.strengths
        density = cv2.transform(np.stack(amounts, axis=-1), -np.log(10.0) * vectors)
        light = np.asarray(cv2.exp(density), np.float32) * np.float32(255.0 * np.array(self.white))
        light += rng.standard_normal(light.shape, np.float32) * np.float32(self.noise)
        return (light + np.float32(0.5)).clip(0.0, 255.0).astype(np.uint8)


def _turned(rng: np.random.Generator, vector: Vector, spread: float) -> Vector:
    """The vector a little turned, at the same length."""
    turned = np.clip(vector + rng.normal(0.0, spread, 3), 0.02, None)
    return tuple(turned * np.linalg.norm(vector) / np.linalg.norm(turned))
