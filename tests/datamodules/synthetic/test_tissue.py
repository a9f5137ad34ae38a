"""Synthetic tissue: what it says about itself is in its pixels."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from datamodules.core.errors import ConfigError
from datamodules.synthetic.scene import ORGANS, NucleusType, Scene, Stain, Tissue, scene


def draw(seed: int, *size: int, **wishes: object) -> Scene:
    return scene(np.random.default_rng(seed), *(size or (160, 192)), **wishes)


def bytes_of(field: Scene) -> str:
    parts = (field.image, field.nuclei, field.nucleus_types, field.glands, field.regions)
    parts += (field.mitoses, field.lookalikes)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def hematoxylin(field: Scene, stain: Stain) -> np.ndarray:
    density = -np.log10((field.image + 1.0) / 255.0 / np.array(stain.white))
    amounts = density @ np.linalg.pinv(np.array([stain.hematoxylin, stain.eosin]))
    return amounts[..., 0]


def diameters_um(field: Scene, kind: NucleusType) -> np.ndarray:
    areas = np.bincount(field.nuclei.ravel())[1:][field.nucleus_types == kind]
    return np.sqrt(4.0 / np.pi * areas) * field.mpp


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    wishes = {"malignancy": 0.7, "mitoses": 1, "lookalikes": 1, "organ": "breast"}
    assert bytes_of(draw(3, **wishes)) == bytes_of(draw(3, **wishes))
    assert bytes_of(draw(3, **wishes)) != bytes_of(draw(4, **wishes))


@pytest.mark.parametrize("tissue", Tissue)
def test_every_tissue_fills_its_field(tissue):
    field = draw(1, tissue=tissue)
    assert field.image.shape == (160, 192, 3)
    assert field.image.dtype == np.uint8
    share = (field.regions == tissue.code).mean()
    assert share > (0.5 if tissue in (Tissue.NORMAL, Tissue.TUMOUR) else 0.999)
    expected_nuclei = tissue is not Tissue.BACKGROUND
    assert (len(field.nucleus_types) > 0) == expected_nuclei


def test_tissues_look_different():
    stain = Stain()
    images = {t: draw(5, tissue=t, stain=stain).image for t in Tissue}
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
    in_glands = np.isin(field.regions, [Tissue.NORMAL.code, Tissue.TUMOUR.code])
    assert in_glands.any()
    assert (in_glands == (field.glands > 0)).mean() > 0.98


@pytest.mark.parametrize("malignancy", [0.0, 1.0])
def test_nuclei_carry_more_hematoxylin_than_their_surroundings(malignancy):
    stain = Stain()
    field = draw(9, malignancy=malignancy, stain=stain)
    amount = hematoxylin(field, stain)
    around = cv2.dilate((field.nuclei > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    around &= field.nuclei == 0
    mean = np.bincount(field.nuclei.ravel(), amount.ravel()) / np.bincount(field.nuclei.ravel())
    assert amount[field.nuclei > 0].mean() > 2.5 * amount[around].mean()
    assert (mean[1:] > amount[around].mean()).mean() > 0.95


def test_mitoses_are_dark_neoplastic_nuclei_and_lookalikes_are_dead_ones():
    stain = Stain()
    for seed in range(4):
        field = draw(
            seed, 256, 256, malignancy=0.8, mitoses=3, lookalikes=2, stain=stain, organ="breast"
        )
        amount = hematoxylin(field, stain)
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
    assert gaps[np.triu_indices(5, 1)].min() * field.mpp > 8.0


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
            field = draw(seed, 256, 256, tissue=Tissue.TUMOUR, malignancy=malignancy, stain=Stain())
            pale = cv2.blur(field.image, (9, 9)).min(axis=-1) > 195
            shares.append(pale[field.glands > 0].mean())
        return float(np.mean(shares))

    assert empty_share(0.1) > 2.0 * empty_share(1.0) + 0.02


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_nuclei_have_the_same_size_in_um_at_every_magnification(mpp):
    side = int(160 / mpp)
    field = draw(11, side, side, mpp=mpp, tissue=Tissue.LYMPHOID)
    assert 4.5 < np.median(diameters_um(field, NucleusType.INFLAMMATORY)) < 6.5


@pytest.mark.parametrize("mpp", [2.0, 4.0])
def test_coarse_fields_keep_their_size_and_truth(mpp):
    field = draw(12, 50, 50, mpp=mpp, malignancy=0.8, mitoses=1)
    assert field.image.shape == (50, 50, 3)
    assert field.nuclei.shape == field.glands.shape == field.regions.shape == (50, 50)
    assert len(np.unique(field.nuclei)) == len(field.nucleus_types) + 1 > 50
    assert (field.mitoses < 50).all()
    assert len(field.polygons()) == len(field.nucleus_types)


@pytest.mark.parametrize("malignancy", [0.0, 1.0])
def test_polygons_fill_back_to_their_instances(malignancy):
    field = draw(13, malignancy=malignancy)
    polygons = field.polygons()
    assert len(polygons) == len(field.nucleus_types)
    for number, polygon in enumerate(polygons, start=1):
        assert polygon.shape[0] >= 3
        filled = np.zeros(field.nuclei.shape, np.uint8)
        cv2.fillPoly(filled, [polygon.astype(np.int32)], 1)
        truth = field.nuclei == number
        assert (truth & (filled > 0)).sum() / (truth | (filled > 0)).sum() > 0.95


def test_boxes_are_tight():
    field = draw(14)
    for number, (x1, y1, x2, y2) in enumerate(field.boxes().astype(int), start=1):
        rows, columns = np.nonzero(field.nuclei == number)
        assert (columns.min(), rows.min()) == (x1, y1)
        assert (columns.max() + 1, rows.max() + 1) == (x2, y2)


def test_a_field_without_nuclei_has_empty_truth_of_the_right_shape():
    field = draw(15, 32, 32, tissue=Tissue.BACKGROUND)
    assert field.boxes().shape == (0, 4)
    assert field.polygons() == []
    assert field.cellularity == 0.0


def test_cellularity_follows_the_wished_share_of_tumour():
    wished = (0.0, 0.3, 0.9)
    found = [
        np.mean(
            [
                draw(s, 256, 256, malignancy=0.9, epithelium=share, organ="breast").cellularity
                for s in range(6)
            ]
        )
        for share in wished
    ]
    assert found[0] == 0.0
    assert 0.1 < found[1] < found[2] - 0.1
    assert found[2] > 0.4
    assert draw(0, malignancy=0.0, epithelium=0.9).cellularity == 0.0


def test_stains_differ_between_slides_and_a_fixed_stain_does_not():
    drawn = [draw(s, 96, 96, tissue=Tissue.MUSCLE).image.mean(axis=(0, 1)) for s in range(12)]
    kept = [
        draw(s, 96, 96, tissue=Tissue.MUSCLE, stain=Stain()).image.mean(axis=(0, 1))
        for s in range(12)
    ]
    assert np.std(drawn, axis=0).mean() > 2.0 * np.std(kept, axis=0).mean()


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
    images = [draw(s, 160, 160, malignancy=0.8 * label).image for s, label in enumerate(labels)]
    by_colour = _accuracy([image.mean(axis=(0, 1)) for image in images], labels)
    by_structure = _accuracy([_statistics(image) for image in images], labels)
    assert by_structure > 0.75
    assert by_colour < 0.90
    assert by_structure > by_colour


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"organ": "antler"}, "antler.*colon"),
        ({"malignancy": 1.5}, "malignancy=1.5"),
        ({"mpp": 0.0}, "mpp=0.0"),
        ({"epithelium": -0.1}, "epithelium=-0.1"),
        ({"mitoses": 500}, "room for"),
        ({"mitoses": -1}, "mitoses"),
    ],
)
def test_impossible_wishes_are_refused_with_what_is_possible(wishes, said):
    with pytest.raises(ConfigError, match=said):
        draw(16, **wishes)
