"""Colour, blur and stain on the device: what albumentations gives, drawn for each image."""

from __future__ import annotations

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np
import pytest
import torch
from albumentations.augmentations.pixel import functional as pixel

from models.training.color_jitter import adjust_color, blur_some, convolve, gaussians, jitter_color
from models.training.stain_jitter import jitter_stain

STEPS = (
    pixel.adjust_brightness_torchvision,
    pixel.adjust_contrast_torchvision,
    pixel.adjust_saturation_torchvision,
    pixel.adjust_hue_torchvision,
)


def picture() -> np.ndarray:
    """All hues, grey, black and white, (64, 48, 3) uint8."""
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    image[:8], image[8:12], image[12:16] = image[:8, :, :1], 0, 255
    return image


def on_device(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def back(images: torch.Tensor) -> np.ndarray:
    return 255 * images[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
@pytest.mark.parametrize(
    "factors", [(1.2, 0.8, 1.2, 0.05), (0.8, 1.2, 0.8, -0.05), (1.0, 1.0, 1.0, 0.0)]
)
def test_colours_change_as_in_albumentations(factors, order):
    image = picture()
    expected, exact = image.copy(), image.astype(np.float32) / 255
    for step in order:
        expected = STEPS[step](expected, factors[step])
        exact = np.clip(STEPS[step](exact, factors[step]), 0, 1)
    ours = back(adjust_color(on_device(image), torch.tensor([factors]), order))
    np.testing.assert_allclose(ours, 255 * exact, atol=0.02)  # of 255 grey levels
    assert np.abs(ours - expected).mean() < 1.5  # bytes are rounded at each of the four steps


@pytest.mark.parametrize(("sigma", "side"), [(0.5, 3), (3.0, 3), (0.7, 5), (2.5, 5)])
def test_a_blur_is_that_of_albumentations(sigma, side):
    image = picture()
    blur = A.GaussianBlur(blur_limit=(side, side), sigma_limit=(sigma, sigma), p=1)
    kernels = gaussians(torch.tensor([sigma]), torch.tensor([side // 2]))
    ours = back(convolve(on_device(image), kernels))
    np.testing.assert_allclose(ours, blur(image=image)["image"], atol=1.01)


def test_each_image_draws_its_own_colours_within_the_strength():
    grey = torch.full((400, 3, 4, 4), 0.5)
    changed = jitter_color(grey.clone(), 0.2, torch.Generator().manual_seed(0))
    level = changed.mean((1, 2, 3)) / 0.5  # of grey, only the brightness changes
    still = (level - 1).abs() < 1e-5
    assert 0.1 < still.float().mean() < 0.3
    assert 0.8 <= level.min() < 0.82 and 1.18 < level.max() <= 1.2001


def test_as_many_images_are_blurred_as_asked_for():
    images = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    blurred = blur_some(images.clone(), 0.25, torch.Generator().manual_seed(0))
    share = (blurred != images).flatten(1).any(1).float().mean()
    assert 0.2 < share < 0.3
    assert torch.equal(blur_some(images.clone(), 1e-9, torch.Generator().manual_seed(0)), images)


def test_a_batch_of_one_is_drawn_as_in_albumentations_on_average():
    """The spread of the changed means is that of the augmentation that it replaces."""
    image = picture()
    span = (0.8, 1.2)
    old = A.ColorJitter(brightness=span, contrast=span, saturation=span, hue=(-0.05, 0.05), p=0.8)
    old.set_random_seed(0)
    theirs = np.array([old(image=image)["image"].mean() for _ in range(300)])
    g = torch.Generator().manual_seed(0)
    ours = np.array([back(jitter_color(on_device(image), 0.2, g)).mean() for _ in range(300)])
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=3)
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.2)


def test_stain_jitter_is_drawn_per_image_and_is_the_identity_at_strength_zero():
    images = torch.rand(3, 3, 8, 8) * 0.8 + 0.1
    still = jitter_stain(images, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(still, images, rtol=1e-4, atol=1e-5)
    same = images[:1].expand(3, -1, -1, -1)
    moved = jitter_stain(same, 0.1, torch.Generator().manual_seed(0))
    assert moved.min() >= 0 and moved.max() <= 1
    assert 1e-3 < (moved - same).abs().mean() < 0.2
    assert not torch.allclose(moved[0], moved[1], atol=1e-3)
