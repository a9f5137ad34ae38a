"""Tiling: image, mask and boxes stay on one another, and nothing falls between tiles."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datamodules.core.errors import ImageError
from datamodules.core.records import Boxes, Task, TaskKind
from datamodules.store.tiling import Patch, Tiler, View, clip_boxes, grid

TASKS = (
    Task("label", TaskKind.CLASSIFICATION, ("a", "b")),
    Task("area", TaskKind.SEGMENTATION, ("background", "object")),
    Task("objects", TaskKind.DETECTION, ("thing",)),
)
sides = st.integers(24, 64)
lengths = st.integers(20, 200)


def picture(height, width, number, rng):
    """Bright rectangles on black, which mask and boxes describe exactly."""
    image, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    boxes = []
    for _ in range(number):
        w, h = rng.integers(6, 17, 2)
        x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
        image[y : y + h, x : x + w], mask[y : y + h, x : x + w] = 255, 1
        boxes.append((x, y, x + w, y + h))
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return image, {"label": 1, "area": mask, "objects": Boxes(xyxy, np.zeros(number, np.int64))}


@given(length=st.integers(1, 5000), side=st.integers(1, 600))
def test_the_grid_covers_everything_within_the_image(length, side):
    corners = grid(length, side)
    assert corners[0] == 0
    if length >= side:
        assert corners[-1] + side == length
        assert all(b - a <= side for a, b in itertools.pairwise(corners))
        assert len(corners) == -(-length // side)  # no more tiles than are needed
    assert corners == sorted(set(corners))


@settings(deadline=None, max_examples=60)
@given(
    height=lengths, width=lengths, side=sides, number=st.integers(0, 5),
    mpp=st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_image_mask_and_boxes_stay_aligned(height, width, side, number, mpp, seed):
    image, targets = picture(height, width, number, np.random.default_rng(seed))
    scale = mpp / 0.5 if mpp else 1.0
    for patch in Tiler(TASKS, side, View.TILE, 0.5).cut(image, targets, mpp):
        assert patch.image.shape == (side, side, 3)
        mask, boxes = patch.targets["area"], patch.targets["objects"]
        known = mask != 255
        # Grey edges are where resampling mixes; all else must agree, pixel by pixel.
        sure = known & ((patch.image[..., 0] < 30) | (patch.image[..., 0] > 225))
        assert ((patch.image[..., 0] > 127) == (mask == 1))[sure].all()
        assert (boxes.xyxy >= 0).all() and (boxes.xyxy <= side).all()
        for x1, y1, x2, y2 in boxes.xyxy:
            inner = mask[int(np.ceil(y1)) : int(y2), int(np.ceil(x1)) : int(x2)]
            assert (inner == 1).mean() > 1 - 2.5 / max(1, min(inner.shape)) if inner.size else True
        assert patch.mpp == pytest.approx(0.5 if mpp else 0.0)
        assert patch.targets["label"] == 1
        if scale == 1.0:
            window = image[patch.y : patch.y + side, patch.x : patch.x + side]
            inside = patch.image[: window.shape[0], : window.shape[1]]
            np.testing.assert_array_equal(inside, window)


@settings(deadline=None, max_examples=100)
@given(
    height=lengths, width=lengths, side=sides, view=st.sampled_from(View),
    mpp=st.sampled_from([0.0, 0.25, 0.4, 0.5, 0.8, 1.0]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_the_box_of_an_object_is_the_one_around_its_mask(height, width, side, view, mpp, seed):
    image, targets = picture(height, width, 1, np.random.default_rng(seed))
    scale = side / min(height, width) if view is View.WHOLE else mpp / 0.5 if mpp else 1.0
    (source,) = targets["objects"].xyxy
    assume(scale * min(source[2:] - source[:2]) >= 3)  # smaller ones vanish from masks
    for patch in Tiler(TASKS, side, view, 0.5).cut(image, targets, mpp):
        rows, columns = np.nonzero(patch.targets["area"] == 1)
        for box in patch.targets["objects"].xyxy:
            around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box, around, atol=1)
            # The patch says where it lies in the image, so that every object is found there.
            window = np.array([patch.x, patch.y, patch.x + side / scale, patch.y + side / scale])
            seen = np.clip(source, np.tile(window[:2], 2), np.tile(window[2:], 2))
            np.testing.assert_allclose(
                box / scale + np.tile(window[:2], 2), seen, atol=1 + 1 / scale
            )


@settings(deadline=None, max_examples=60)
@given(height=lengths, width=lengths, side=sides, seed=st.integers(0, 2**32 - 1))
def test_every_pixel_and_every_object_is_in_some_tile(height, width, side, seed):
    image, targets = picture(height, width, 6, np.random.default_rng(seed))
    seen, objects = np.zeros((height, width), bool), set()
    for patch in Tiler(TASKS, side, View.TILE, 0.0).cut(image, targets, 0.0):
        seen[patch.y : patch.y + side, patch.x : patch.x + side] = True
        corner = np.array([patch.x, patch.y] * 2)
        for box in patch.targets["objects"].xyxy + corner:
            hits = (targets["objects"].xyxy[:, :2] <= box[:2]) & (
                box[2:] <= targets["objects"].xyxy[:, 2:]
            )
            objects |= set(np.flatnonzero(hits.all(axis=1)).tolist())
    assert seen.all()
    assert objects == set(range(6))


def test_an_object_where_four_tiles_meet_is_in_one_of_them():
    mask = np.zeros((64, 64), np.uint8)
    boxes = Boxes(np.array([[27, 27, 37, 37]], np.float32), np.zeros(1, np.int64))
    targets = {"label": 0, "area": mask, "objects": boxes}
    image = np.zeros((64, 64, 3), np.uint8)
    patches = Tiler(TASKS, 32, View.TILE, 0.0).cut(image, targets, 0.0)
    assert sum(len(patch.targets["objects"]) for patch in patches) >= 1


def test_a_box_that_lies_mostly_elsewhere_does_not_count():
    boxes = Boxes(np.array([[-7, 0, 3, 10], [-3, 0, 7, 10]], np.float32), np.array([0, 1]))
    kept = clip_boxes(boxes, 0, 0, 20, keep=0.5)
    np.testing.assert_array_equal(kept.xyxy, [[0, 0, 7, 10]])
    assert kept.labels.tolist() == [1]


def test_whole_keeps_the_centre_square_of_a_scaled_image():
    rng = np.random.default_rng(0)
    image, targets = picture(80, 160, 4, rng)
    (patch,) = Tiler(TASKS, 40, View.WHOLE, 0.5).cut(image, targets, 0.3)
    assert patch.image.shape == (40, 40, 3)
    assert patch.mpp == pytest.approx(0.6)  # not the wanted 0.5: the whole image is scaled
    np.testing.assert_array_equal(patch.targets["area"], targets["area"][1::2, 41:121:2])


def test_a_whole_image_of_patch_size_is_not_touched():
    rng = np.random.default_rng(1)
    image, targets = picture(48, 48, 3, rng)
    (patch,) = Tiler(TASKS, 48, View.WHOLE, 0.5).cut(image, targets, 0.0)
    np.testing.assert_array_equal(patch.image, image)
    np.testing.assert_array_equal(patch.targets["area"], targets["area"])
    np.testing.assert_array_equal(patch.targets["objects"].xyxy, targets["objects"].xyxy)


def test_a_small_image_is_mirrored_and_its_margin_carries_no_label():
    rng = np.random.default_rng(2)
    image, targets = picture(20, 32, 3, rng)
    (patch,) = Tiler(TASKS[:2], 32, View.TILE, 0.0).cut(image, targets, 0.0)
    np.testing.assert_array_equal(patch.image[20:32], image[19:7:-1])
    assert (patch.targets["area"][20:] == 255).all()
    np.testing.assert_array_equal(patch.targets["area"][:20], targets["area"])


def test_objects_to_detect_have_no_mirror_images_without_box():
    tissue = np.full((20, 24, 3), (230, 180, 210), np.uint8)
    tissue[8:16, 14:22] = 40  # one dark object, near both edges that are continued
    boxes = Boxes(np.array([[14, 8, 22, 16]], np.float32), np.zeros(1, np.int64))
    targets = {"label": 1, "area": np.zeros((20, 24), np.uint8), "objects": boxes}
    (patch,) = Tiler(TASKS, 32, View.TILE, 0.0).cut(tissue, targets, 0.0)
    pieces, _ = cv2.connectedComponents((patch.image[..., 0] < 128).astype(np.uint8))
    assert pieces - 1 == len(patch.targets["objects"]) == 1
    np.testing.assert_array_equal(patch.image[:20, :24], tissue)
    assert (patch.image[20:] == (230, 180, 210)).all()
    assert (patch.image[:, 24:] == (230, 180, 210)).all()
    assert (patch.targets["area"][20:] == 255).all()


def test_a_row_of_pixels_is_refused_before_it_fills_the_memory():
    row = np.zeros((1, 20_000, 3), np.uint8)
    with pytest.raises(ImageError, match="20000x1 px would become 5120000x256 px"):
        Tiler((), 256, View.WHOLE, 0.0).cut(row, {}, 0.0)


def test_tiles_without_any_label_are_left_out():
    area = (Task("area", TaskKind.SEGMENTATION, ("background", "object")),)
    mask = np.full((64, 64), 255, np.uint8)
    mask[:10, 40:50] = 1
    image = np.zeros((64, 64, 3), np.uint8)
    (patch,) = Tiler(area, 32, View.TILE, 0.0).cut(image, {"area": mask}, 0.0)
    assert (patch.x, patch.y) == (32, 0)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(share=st.floats(0, 1), columns=st.integers(20, 60))
def test_thinning_keeps_objects_and_an_even_share_of_the_rest(share, columns):
    task = (Task("objects", TaskKind.DETECTION, ("thing",)),)
    pixels = np.zeros((1, 1, 3), np.uint8)
    one = Boxes(np.array([[0, 0, 1, 1]], np.float32), np.zeros(1, np.int64))
    patches = [
        Patch(pixels, {"objects": one if (x + y) % 7 == 0 else Boxes()}, 256 * x, 256 * y, 0.5)
        for y in range(40)
        for x in range(columns)
    ]
    tiler = Tiler(task, 1, View.TILE, 0.0, empty_share=share)
    kept = tiler.thinned(patches)
    assert [p for p in kept if len(p.targets["objects"])] == [
        p for p in patches if len(p.targets["objects"])
    ]
    drawn = np.array([[p.x, p.y] for p in kept if not len(p.targets["objects"])]).reshape(-1, 2)
    empty = sum(not len(p.targets["objects"]) for p in patches)
    assert abs(len(drawn) - share * empty) <= 4 * np.sqrt(empty * share * (1 - share)) + 1
    if 0.2 < share < 0.8:  # no column is always and none never taken
        taken = np.bincount(drawn[:, 0] // 256, minlength=columns)
        assert taken.min() > 0 and taken.max() < 35
    assert tiler.thinned(patches[::-1]) == kept[::-1]


def test_thinning_leaves_images_without_a_detection_task_alone():
    patch = Patch(np.zeros((1, 1, 3), np.uint8), {"label": 0}, 0, 0, 0.5)
    assert Tiler(TASKS[:1], 1, View.WHOLE, 0.0, empty_share=0.0).thinned([patch]) == [patch]
