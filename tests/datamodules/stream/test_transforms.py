"""Augmentation: pixels and targets move together, and a seed fixes everything."""

import numpy as np
import pytest
from albumentations.augmentations.geometric.functional import d4
from albumentations.core.type_definitions import d4_group_elements

from datamodules.config import AugmentationConfig
from datamodules.core.records import Boxes, Task, TaskKind
from datamodules.stream.transforms import TURNS, Transform

TASKS = (
    Task("grade", TaskKind.CLASSIFICATION, ("a", "b")),
    Task("area", TaskKind.SEGMENTATION, ("background", "object")),
    Task("cells", TaskKind.DETECTION, ("x", "y", "z")),
    Task("mitoses", TaskKind.DETECTION, ("figure",)),
)
GEOMETRY = AugmentationConfig()


def picture(side=96):
    """A red, a green and a blue rectangle on black, in a mask and in the boxes of two tasks."""
    image, mask = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8)
    corners = np.array([[10, 20, 34, 30], [50, 8, 66, 40], [30, 60, 80, 84]], np.float32)
    for channel, (x1, y1, x2, y2) in enumerate(corners.astype(int)):
        image[y1:y2, x1:x2, channel], mask[y1:y2, x1:x2] = 255, 1
    targets = {
        "grade": 1,
        "area": mask,
        "cells": Boxes(corners[:2], np.array([0, 2])),
        "mitoses": Boxes(corners[2:], np.array([0])),
    }
    return image, targets


def extent(channel):
    """Box around what is bright in a channel."""
    rows, columns = np.nonzero(channel > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("seed", range(20))
def test_boxes_stay_on_the_pixels(seed):
    image, changed = Transform(64, TASKS, GEOMETRY)(*picture(), seed)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    for channel, name, label in ((0, "cells", 0), (1, "cells", 2), (2, "mitoses", 0)):
        for box in changed[name].xyxy[changed[name].labels == label]:
            np.testing.assert_allclose(box, extent(image[..., channel]), atol=1.0)
    assert sum(len(changed[name]) for name in ("cells", "mitoses")) > 0
    assert changed["grade"] == 1


def test_masks_stay_on_the_pixels_to_a_fraction_of_one():
    image, targets = picture()
    agreement = []
    for seed in range(40):
        pixels, changed = Transform(64, TASKS, GEOMETRY)(image, targets, seed)
        agreement.append(((pixels.max(axis=2) > 127) == (changed["area"] == 1)).mean())
    assert np.mean(agreement) > 0.995
    pixels, changed = Transform(64, TASKS)(image, targets, 0)
    assert ((pixels.max(axis=2) > 127) == (changed["area"] == 1)).mean() > 0.995


def test_boxes_keep_their_task_and_their_class():
    _, changed = Transform(64, TASKS)(*picture(), 0)
    np.testing.assert_allclose(changed["cells"].xyxy, picture()[1]["cells"].xyxy * 2 / 3, atol=1e-4)
    assert changed["cells"].labels.tolist() == [0, 2]
    assert changed["mitoses"].labels.tolist() == [0]
    assert changed["cells"].xyxy.dtype == np.float32 and changed["cells"].labels.dtype == np.int64


def test_a_seed_fixes_the_sample_and_another_changes_it():
    transform = Transform(64, TASKS, GEOMETRY)
    first, one = transform(*picture(), 7)
    transform(*picture(), 8)  # what went through before must not matter
    second, two = transform(*picture(), 7)
    fresh, _ = Transform(64, TASKS, GEOMETRY)(*picture(), 7)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, fresh)
    np.testing.assert_array_equal(one["area"], two["area"])
    np.testing.assert_array_equal(one["cells"].xyxy, two["cells"].xyxy)
    samples = {transform(*picture(), seed)[0].tobytes() for seed in range(20)}
    assert len(samples) == 20


def test_evaluation_only_scales():
    image, targets = picture(96)
    same, unchanged = Transform(96, TASKS)(image, targets, 3)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(unchanged["area"], targets["area"])
    np.testing.assert_allclose(unchanged["mitoses"].xyxy, targets["mitoses"].xyxy, atol=1e-4)
    one, two = (Transform(48, TASKS)(image, targets, seed)[0] for seed in (1, 2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, image[::2, ::2])


def test_the_input_is_left_as_it_was():
    image, targets = picture()
    before = image.copy(), targets["area"].copy(), targets["cells"].xyxy.copy()
    for seed in range(10):
        Transform(64, TASKS, GEOMETRY)(image, targets, seed)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(targets["area"], before[1])
    np.testing.assert_array_equal(targets["cells"].xyxy, before[2])


def test_ignored_pixels_stay_ignored_and_no_class_is_invented():
    image, targets = picture()
    targets["area"][:, 48:] = 255
    for seed in range(10):
        _, changed = Transform(64, TASKS, GEOMETRY)(image, targets, seed)
        assert set(np.unique(changed["area"])) <= {0, 1, 255}


def test_an_image_without_objects_passes():
    image, targets = picture()
    targets |= {"cells": Boxes(), "mitoses": Boxes()}
    _, changed = Transform(64, TASKS, GEOMETRY)(image, targets, 0)
    assert changed["cells"].xyxy.shape == (0, 4) and changed["mitoses"].labels.shape == (0,)


def test_objects_that_a_crop_leaves_out_are_gone():
    strong = AugmentationConfig(scale_min=0.1)
    gone = 0
    for seed in range(30):
        image, changed = Transform(64, TASKS, strong)(*picture(), seed)
        boxes = np.concatenate([changed["cells"].xyxy, changed["mitoses"].xyxy])
        assert (boxes >= 0).all() and (boxes <= 64).all()
        if not (image[..., 2] > 127).any():
            gone += 1
            assert not len(changed["mitoses"])
    assert 0 < gone < 30


def test_turns_are_those_of_albumentations():
    image, targets = picture()
    for name in d4_group_elements:
        for pixels in (image, targets["area"]):
            np.testing.assert_array_equal(TURNS[name](pixels), d4(pixels, name))
    assert list(TURNS) == d4_group_elements


def test_training_crops_shrink_without_aliasing():
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255  # beyond what 24 pixels can show
    shrunk, _ = Transform(24, (), AugmentationConfig(scale_min=1.0))(stripes, {}, seed=0)
    assert np.abs(shrunk.astype(int) - 127).max() < 30


def test_a_patch_that_is_smaller_than_the_input_grows_smoothly() -> None:
    ramp = np.linspace(0, 255, 50).astype(np.uint8)
    image = np.repeat(np.tile(ramp, (50, 1))[:, :, None], 3, axis=2)
    grown, _ = Transform(112, ())(image, {}, seed=0)
    steps = np.diff(grown[56, 4:-4, 0].astype(int))
    assert (steps > 0).all(), "neighbouring pixels repeat: the patch was grown in blocks"
