"""Colour of synthetic slides: two stains after Beer and Lambert, and how laboratories differ."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
FloatMap = NDArray[np.float32]


@dataclass(frozen=True)
class Stain:
    """Hematoxylin and eosin on one slide under one scanner.

    Optical density is `-log10(transmitted / incident)` per channel (red, green, blue); densities
    of stains add up, which is why two stains mix as they do under a microscope.

    Attributes:
        hematoxylin, eosin: density of one unit of stain per channel. The default hematoxylin is
            the reference vector widely reused with Macenko et al., ISBI 2009; the default eosin
            has less blue density, which meets the mean colour of stroma in CRC-VAL-HE-7K.
        hematoxylin_strength, eosin_strength: how strongly this slide took the stain.
        white: light that reaches the sensor through empty glass, 0..1 per channel.
        noise: standard deviation of the sensor's noise in grey levels.
    """

    hematoxylin: Vector = (0.5626, 0.7201, 0.4062)
    eosin: Vector = (0.20, 0.87, 0.45)
    hematoxylin_strength: float = 0.78
    eosin_strength: float = 1.0
    white: Vector = (0.955, 0.945, 0.955)
    noise: float = 2.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Stain:
        """A plausible slide: another day, another laboratory, another scanner."""
        hematoxylin = _turn(rng, np.array(cls.hematoxylin), 0.045)
        eosin = _turn(rng, np.array(cls.eosin), 0.065)
        light = rng.uniform(0.90, 0.99)
        tint = np.clip(light + rng.normal(0.0, 0.010, 3), 0.85, 1.0)
        return cls(
            hematoxylin=hematoxylin,
            eosin=eosin,
            hematoxylin_strength=cls.hematoxylin_strength * float(np.exp(rng.normal(0.0, 0.16))),
            eosin_strength=cls.eosin_strength * float(np.exp(rng.normal(0.0, 0.22))),
            white=(float(tint[0]), float(tint[1]), float(tint[2])),
            noise=float(rng.uniform(1.0, 3.0)),
        )

    def develop(
        self, rng: np.random.Generator, hematoxylin: FloatMap, eosin: FloatMap
    ) -> NDArray[np.uint8]:
        """Turn the amounts of the two stains into an RGB image.

        Args:
            rng: source of the sensor's noise.
            hematoxylin: amount of stain per pixel, shape (height, width), 0 is unstained.
            eosin: the same for eosin.

        Returns:
            uint8 image of shape (height, width, 3).
        """
        amounts = np.stack([hematoxylin, eosin], axis=-1)
        strengths = np.array([self.hematoxylin_strength, self.eosin_strength])
        vectors = np.array([self.hematoxylin, self.eosin]) * strengths[:, None]
        to_light = (-np.log(10.0) * vectors.T).astype(np.float32)
        light = np.asarray(cv2.exp(cv2.transform(amounts, to_light)), np.float32)
        light *= np.asarray(self.white, np.float32) * 255.0
        light += rng.standard_normal(light.shape, np.float32) * np.float32(self.noise)
        return np.asarray(np.clip(light + 0.5, 0.0, 255.0), np.uint8)


def _turn(rng: np.random.Generator, vector: NDArray[np.float64], spread: float) -> Vector:
    """The vector a little turned, at the same length."""
    turned = np.clip(vector + rng.normal(0.0, spread, 3), 0.02, None)
    turned *= np.linalg.norm(vector) / np.linalg.norm(turned)
    return (float(turned[0]), float(turned[1]), float(turned[2]))
