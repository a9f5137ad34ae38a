"""Nearest neighbours come from other patients, and a sheet says in words what it shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.core.records import TaskKind
from evaluation.config import ProbeConfig
from evaluation.figures.canvas import read_picture
from evaluation.figures.neighbour_sheet import agreement_text, describe_sheet, write_sheets
from evaluation.probe.neighbours import NEAREST, find_neighbours
from tests.support.probe_tables import table


class Patches:
    """Images of one colour each."""

    synthetic = True

    def images(self, indices: list[int]) -> np.ndarray:
        return np.stack([np.full((16, 16, 3), 2 * i, np.uint8) for i in indices])


def test_neighbours_are_the_most_alike_images_of_other_groups() -> None:
    one = table()
    found = find_neighbours(one, queries=5, points=1000, seed=0)
    unit = one.features / np.linalg.norm(one.features, axis=1, keepdims=True)
    alike = []
    for row in range(len(unit)):
        others = np.flatnonzero(one.groups != one.groups[row])
        near = others[np.argsort(-(unit[others] @ unit[row]))][:NEAREST]
        alike.append(one.targets[near] == one.targets[row])
        if row in found.queries:
            (place,) = np.flatnonzero(found.queries == row)
            assert found.nearest[place].tolist() == near.tolist()
    assert found.nearest.shape == (5, NEAREST)
    assert found.agreement == pytest.approx(np.mean(alike))
    assert found.looked_at == 72
    different = one.groups[:, None] != one.groups
    same = one.targets[:, None] == one.targets
    assert found.chance == pytest.approx(same[different].mean())


def test_every_encoder_is_asked_about_the_same_images() -> None:
    mine = find_neighbours(table("ours"), 6, 40, 0)
    other = find_neighbours(table("imagenet:x"), 6, 40, 0)
    assert mine.queries.tolist() == other.queries.tolist()
    assert mine.looked_at == other.looked_at == 40
    assert set(table().targets[mine.queries]) == {0, 1}


def test_a_group_that_fills_what_is_looked_at_still_has_neighbours() -> None:
    lopsided = replace(table(), groups=np.r_[np.zeros(71), 1].astype(np.int32))
    found = find_neighbours(lopsided, 2, 3, 0)
    assert found.nearest.shape[1] == 1


def test_a_sheet_shows_and_says_what_was_found(tmp_path: Path) -> None:
    encoders = [table("ours"), table("imagenet:x")]
    settings = ProbeConfig(neighbours=3, map_points=50)
    paths = write_sheets(encoders, Patches(), settings, tmp_path)
    assert [p.name for p in paths] == ["idc-1-this_encoder.png", "idc-2-ImageNet.png"]
    _, words = read_picture(paths[0])
    found = find_neighbours(encoders[0], 3, 50, 0)
    assert words.title == "idc, this encoder"
    assert words.text == describe_sheet(found)
    assert words.caption == agreement_text(found)
    assert f"{100 * found.agreement:.0f} % show the same class" in words.caption
    with Image.open(paths[0]) as picture:
        assert picture.width > 500
    value = find_neighbours(table(kind=TaskKind.REGRESSION), 3, 50, 0)
    assert f"differ by {value.agreement:.3f}" in agreement_text(value)
    assert value.agreement < value.chance, "these features show the target"
