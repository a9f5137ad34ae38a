"""Nearest neighbours are of other patients, and a sheet describes in words what it shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datamodules.core.records import TaskKind
from evaluation.config import ProbeConfig
from evaluation.figures.neighbour_sheet import agreement_text, neighbour_sheets
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
    assert found.candidates == 72
    different = one.groups[:, None] != one.groups
    same = one.targets[:, None] == one.targets
    assert found.chance == pytest.approx(same[different].mean())


def test_every_encoder_gets_the_same_images() -> None:
    own = find_neighbours(table("ours"), 6, 40, 0)
    other = find_neighbours(table("imagenet:x"), 6, 40, 0)
    assert own.queries.tolist() == other.queries.tolist()
    assert own.candidates == other.candidates == 40
    assert set(table().targets[own.queries]) == {0, 1}


def test_a_group_that_fills_the_candidates_still_has_neighbours() -> None:
    lopsided = replace(table(), groups=np.r_[np.zeros(71), 1].astype(np.int32))
    found = find_neighbours(lopsided, 2, 3, 0)
    assert found.nearest.shape[1] == 1


def test_a_sheet_shows_and_describes_the_neighbours() -> None:
    encoders = [table("ours"), table("imagenet:x")]
    settings = ProbeConfig(neighbours=3, map_points=50)
    first, second = neighbour_sheets(encoders, Patches(), settings)
    assert (first.name, second.name) == ("idc-1-this_encoder", "idc-2-ImageNet")
    found = find_neighbours(encoders[0], 3, 50, 0)
    assert first.title == "idc, this encoder"
    assert first.caption == agreement_text(found)
    labels = ", ".join(found.label(row) for row in found.nearest[0])
    assert f"{found.label(found.queries[0])}: {labels}" in first.description
    assert f"{100 * found.agreement:.0f} % show the same class" in first.caption
    assert len(first.figure.axes) == 3 * (1 + NEAREST)
    value = find_neighbours(table(kind=TaskKind.REGRESSION), 3, 50, 0)
    assert f"differ by {value.agreement:.3f}" in agreement_text(value)
    assert value.agreement < value.chance, "these features show the target"
