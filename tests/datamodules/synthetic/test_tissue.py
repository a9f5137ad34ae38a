"""Synthetic tissue: its ground truth agrees with its pixels."""

from __future__ import annotations

import hashlib
from dataclasses import astuple

import cv2
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from datamodules.synthetic.scene import Scene, Slide, slides
from datamodules.synthetic.stain import Stain
from datamodules.synthetic.tissues import ORGANS, NucleusType, Tissue


def draw(seed: int, *size: int, organ: str = "colon", mpp: float = 0.5, **options: object) -> Scene:
    return Slide(np.random.default_rng(seed), organ, mpp).field(*(size or (160, 192)), **options)


def draw_stained(seed: int, *size: int, **options: object) -> Scene:
    rng = np.random.default_rng(seed)
    return Slide(rng, stain=Stain.draw(rng)).field(*size, **options)


def digest(field: Scene) -> str:
    return hashlib.sha256(
        b"".join(np.asarray(part).tobytes() for part in astuple(field))
    ).hexdigest()


def hematoxylin(field: Scene) -> np.ndarray:
    density = -np.log10((field.image + 1.0) / 255.0 / np.array(Stain.white))
    return (density @ np.linalg.pinv(np.array([Stain.hematoxylin, Stain.eosin])))[..., 0]


def diameters_um(field: Scene, kind: NucleusType, mpp: float = 0.5) -> np.ndarray:
    areas = np.bincount(field.nuclei.ravel())[1:][field.nucleus_types == kind]
    return np.sqrt(4.0 / np.pi * areas) * mpp


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    options = {"malignancy": 0.7, "mitoses": 1, "lookalikes": 1, "organ": "breast"}
    assert digest(draw(3, **options)) == digest(draw(3, **options))
    assert digest(draw(3, **options)) != digest(draw(4, **options))


@pytest.mark.parametrize("tissue", Tissue)
def test_every_tissue_fills_its_field(tissue):
    field = draw(1, tissue=tissue)
    assert field.image.shape == (160, 192, 3)
    assert field.image.dtype == np.uint8
    share = (field.regions == tissue).mean()
    assert share > (0.5 if tissue in (Tissue.NORMAL, Tissue.TUMOUR) else 0.999)
    expected_nuclei = tissue is not Tissue.BACKGROUND
    assert (len(field.nucleus_types) > 0) == expected_nuclei


def test_tissues_look_different():
    images = {t: draw(5, tissue=t).image for t in Tissue}
    means = {t: image.mean(axis=(0, 1)) for t, image in images.items()}
    dark = {t: (image[..., 0] < 130).mean() for t, image in images.items()}
    assert min(means[Tissue.BACKGROUND]) > 225
    assert dark[Tissue.LYMPHOID] > 2.0 * dark[Tissue.STROMA] > 0.0
    assert means[Tissue.ADIPOSE].mean() > means[Tissue.MUSCLE].mean() + 40
    redness = {t: mean[0] - mean[2] for t, mean in means.items()}
    assert redness[Tissue.MUSCLE] > redness[Tissue.MUCUS] + 10


@pytest.mark.parametrize("organ", sorted(ORGANS))
def test_every_organ_draws_a_mixed_field(organ):
    field = draw(2, organ=organ, malignancy=0.5)
    assert field.glands.max() > 0
    assert len(field.nucleus_types) > 20


@pytest.mark.parametrize("malignancy", [0.0, 0.5, 1.0])
def test_nuclei_are_numbered_without_a_gap_and_hang_together(malignancy):
    field = draw(7, malignancy=malignancy, mitoses=2)
    numbers = np.unique(field.nuclei)
    assert np.array_equal(numbers, np.arange(len(field.nucleus_types) + 1))
    pieces, _ = cv2.connectedComponents((field.nuclei > 0).astype(np.uint8), connectivity=4)
    assert pieces - 1 == len(field.nucleus_types)
    assert np.array_equal(np.unique(field.glands), np.arange(field.glands.max() + 1))


def test_epithelial_regions_are_where_the_glands_are():
    field = draw(8, malignancy=0.2, organ="prostate")
    in_glands = np.isin(field.regions, [Tissue.NORMAL, Tissue.TUMOUR])
    assert in_glands.any()
    assert (in_glands == (field.glands > 0)).mean() > 0.98


@pytest.mark.parametrize("malignancy", [0.0, 1.0])
def test_nuclei_carry_more_hematoxylin_than_their_surroundings(malignancy):
    field = draw(9, malignancy=malignancy)
    amount = hematoxylin(field)
    around = cv2.dilate((field.nuclei > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    around &= field.nuclei == 0
    mean = np.bincount(field.nuclei.ravel(), amount.ravel()) / np.bincount(field.nuclei.ravel())
    assert amount[field.nuclei > 0].mean() > 2.5 * amount[around].mean()
    assert (mean[1:] > amount[around].mean()).mean() > 0.95


def test_mitoses_are_dark_neoplastic_nuclei_and_lookalikes_are_dead_ones():
    for seed in range(4):
        field = draw(seed, 256, 256, malignancy=0.8, mitoses=3, lookalikes=2, organ="breast")
        amount = hematoxylin(field)
        ordinary = amount[field.nuclei > 0].mean()
        for points, kind in (
            (field.mitoses, NucleusType.NEOPLASTIC),
            (field.lookalikes, NucleusType.DEAD),
        ):
            for x, y in points.astype(int):
                number = field.nuclei[y, x]
                assert number > 0
                assert field.nucleus_types[number - 1] == kind
                assert amount[field.nuclei == number].mean() > 1.25 * ordinary


def test_mitoses_and_lookalikes_come_in_the_numbers_asked_for():
    field = draw(10, 256, 256, malignancy=0.9, mitoses=5, lookalikes=0)
    assert field.mitoses.shape == (5, 2)
    assert field.lookalikes.shape == (0, 2)
    assert ((field.mitoses >= 0) & (field.mitoses < 256)).all()
    gaps = np.linalg.norm(field.mitoses[:, None] - field.mitoses[None], axis=-1)
    assert gaps[np.triu_indices(5, 1)].min() * 0.5 > 8.0


def test_mitoses_left_to_chance_become_more_with_malignancy():
    low, high = (
        sum(len(draw(s, 256, 256, tissue=Tissue.TUMOUR, malignancy=m).mitoses) for s in range(12))
        for m in (0.1, 1.0)
    )
    assert high > low + 3


def test_nuclei_grow_with_malignancy_and_vary_more():
    sizes = {
        m: np.concatenate(
            [
                diameters_um(
                    draw(s, 256, 256, tissue=Tissue.TUMOUR, malignancy=m), NucleusType.NEOPLASTIC
                )
                for s in range(4)
            ]
        )
        for m in (0.0, 0.5, 1.0)
    }
    median = {m: np.median(size) for m, size in sizes.items()}
    assert median[0.0] + 1.0 < median[0.5] < median[1.0] - 1.0
    assert 5.5 < median[0.0] < 8.5
    assert 9.0 < median[1.0] < 14.0
    assert sizes[1.0].std() > 1.5 * sizes[0.0].std()


def test_malignancy_takes_lumina_away():
    def empty_share(malignancy: float) -> float:
        shares = []
        for seed in range(5):
            field = draw(seed, 256, 256, tissue=Tissue.TUMOUR, malignancy=malignancy)
            pale = cv2.blur(field.image, (9, 9)).min(axis=-1) > 195
            shares.append(pale[field.glands > 0].mean())
        return float(np.mean(shares))

    assert empty_share(0.1) > 2.0 * empty_share(1.0) + 0.02


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_nuclei_have_the_same_size_in_um_at_every_magnification(mpp):
    side = int(160 / mpp)
    field = draw(11, side, side, mpp=mpp, tissue=Tissue.LYMPHOID)
    assert 4.5 < np.median(diameters_um(field, NucleusType.INFLAMMATORY, mpp)) < 6.5


def test_boxes_are_tight():
    field = draw(14)
    for number, (x1, y1, x2, y2) in enumerate(field.boxes().astype(int), start=1):
        rows, columns = np.nonzero(field.nuclei == number)
        assert (columns.min(), rows.min()) == (x1, y1)
        assert (columns.max() + 1, rows.max() + 1) == (x2, y2)


def test_a_field_without_nuclei_has_empty_truth_of_the_right_shape():
    field = draw(15, 32, 32, tissue=Tissue.BACKGROUND)
    assert field.boxes().shape == (0, 4)
    assert field.cellularity == 0.0


def test_cellularity_follows_the_requested_share_of_tumour():
    expected = (0.0, 0.3, 0.9)
    means = [
        np.mean(
            [
                draw(s, 256, 256, malignancy=0.9, epithelium=share, organ="breast").cellularity
                for s in range(6)
            ]
        )
        for share in expected
    ]
    assert means[0] == 0.0
    assert 0.1 < means[1] < means[2] - 0.1
    assert means[2] > 0.4
    assert draw(0, malignancy=0.0, epithelium=0.9).cellularity == 0.0


def test_stains_differ_between_slides_and_a_fixed_stain_does_not():
    drawn = [
        draw_stained(s, 96, 96, tissue=Tissue.MUSCLE).image.mean(axis=(0, 1)) for s in range(12)
    ]
    kept = [draw(s, 96, 96, tissue=Tissue.MUSCLE).image.mean(axis=(0, 1)) for s in range(12)]
    assert np.std(drawn, axis=0).mean() > 1.5 * np.std(kept, axis=0).mean()


def _accuracy(features: list[np.ndarray], labels: np.ndarray) -> float:
    forest = RandomForestClassifier(200, random_state=0)
    return float(cross_val_score(forest, np.array(features), labels, cv=4).mean())


def _statistics(image: np.ndarray) -> np.ndarray:
    """Colours relative to the slide's own, and the sizes of its dark bodies."""
    red = cv2.GaussianBlur(image[..., 0], (0, 0), 1.0)
    _, dark = cv2.threshold(red, 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    depth = cv2.distanceTransform(dark, cv2.DIST_L2, 3)
    spread = np.quantile(red, [0.02, 0.1, 0.25, 0.5, 0.75]) / np.quantile(red, 0.95)
    return np.concatenate([spread, np.quantile(depth[depth > 0], [0.5, 0.8, 0.95, 0.99])])


def test_malignancy_shows_in_nuclei_and_is_not_given_away_by_the_mean_colour():
    labels = np.arange(120) % 2
    images = [
        draw_stained(s, 160, 160, malignancy=0.8 * label).image for s, label in enumerate(labels)
    ]
    by_colour = _accuracy([image.mean(axis=(0, 1)) for image in images], labels)
    by_structure = _accuracy([_statistics(image) for image in images], labels)
    assert by_structure > 0.75
    assert by_colour < 0.90
    assert by_structure > by_colour


def test_a_field_holds_no_more_mitoses_than_it_has_room_for():
    field = draw(16, 64, 64, mitoses=500)
    assert 0 < len(field.mitoses) < 20
    gaps = np.linalg.norm(field.mitoses[:, None] - field.mitoses[None], axis=-1)
    assert gaps[np.triu_indices(len(gaps), 1)].min() * 0.5 > 8.0


def test_slides_share_a_stain_and_take_their_organs_in_turn():
    planned = list(slides(np.random.default_rng(17), 24, ["colon", "lung"], 0.25, each=4))
    assert [index for index, _, _ in planned] == [slide for slide in range(6) for _ in range(4)]
    assert len({slide.stain for _, _, slide in planned}) == 6
    assert [planned[4 * index][2].organ for index in range(6)] == ["colon", "lung"] * 3
