from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.probe.robustness import centres_of, robustness_rows
from tests.support.probe_tables import table as made_table


def table_of(features, targets, groups, name="encoder"):
    return replace(
        made_table(),
        encoder=name,
        kind=TaskKind.CLASSIFICATION,
        features=np.asarray(features, np.float32),
        targets=np.asarray(targets),
        groups=np.asarray(groups, np.int32),
        rows=np.arange(len(targets)),
    )


def design(n=120):
    """Two classes and two centres, balanced; four images per patient, each of one cell."""
    rng = np.random.default_rng(0)
    patient = np.arange(n) // 4
    return patient % 2, patient // 2 % 2, patient, rng


def test_features_of_the_class_alone_have_index_one_and_of_the_centre_alone_zero():
    target, centre, patient, rng = design()
    noise = rng.normal(0, 0.01, (len(target), 2))
    axis = np.eye(2)
    tables = [
        table_of(axis[target] + noise, target, patient, "class"),
        table_of(axis[centre] + noise, target, patient, "centre"),
        table_of(rng.normal(size=(len(target), 16)), target, patient, "noise"),
    ]
    rows = robustness_rows(tables, centre, 200, 0)
    by_class, by_centre, noise_row = rows
    assert by_class["index"] == by_class["index_low"] == 1.0
    assert by_centre["index"] == by_centre["index_high"] == 0.0
    assert noise_row["index_low"] < noise_row["chance"] < noise_row["index_high"]
    assert abs(noise_row["index"] - 0.5) < 0.1
    assert (noise_row["k"], noise_row["groups"], noise_row["centres"]) == (20, 30, 2)
    assert robustness_rows(tables, centre, 200, 0) == rows


@pytest.mark.parametrize("k", [3, 20])
def test_the_index_equals_a_plain_count_of_neighbours_and_ignores_the_own_patient(k):
    target, centre, patient, rng = design(40)
    features = rng.normal(size=(40, 8))
    features[patient == 0] = 1.0  # images of one patient are each other's nearest
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    good = bad = 0
    for i in range(40):
        others = [j for j in range(40) if patient[j] != patient[i]]
        others.sort(key=lambda j: -float(np.float32(unit[i]) @ np.float32(unit[j])))
        for j in others[:k]:
            good += target[i] == target[j] and centre[i] != centre[j]
            bad += target[i] != target[j] and centre[i] == centre[j]
    row = robustness_rows([table_of(features, target, patient)], centre, 50, 0, k)[0]
    assert row["index"] == pytest.approx(good / (good + bad))


def test_regression_targets_and_centres_of_one_class_are_refused():
    target, centre, patient, _ = design()
    one = table_of(np.ones((120, 2)), target, patient)
    with pytest.raises(ProbeError, match="needs a class for each image; leave it out"):
        robustness_rows([replace(one, kind=TaskKind.REGRESSION)], centre, 50, 0)
    with pytest.raises(ProbeError, match="no class lies in two centres"):
        robustness_rows([one], target, 50, 0)


def test_centres_come_from_the_paths_of_sources_or_their_groups():
    def data(pattern):
        store = SimpleNamespace(
            source_names=["a/hospital1_x.png", "a/hospital2_y.png"],
            source_numbers=np.array([0, 1, 1]),
            group_names=["center 2 patient 4", "center 3 patient 5"],
            group=np.array([0, 1, 1]),
        )
        return SimpleNamespace(name="d", config=SimpleNamespace(centre=pattern), store=store)

    assert centres_of(data(r"hospital(\d)")).tolist() == [0, 1, 1]
    assert centres_of(data("center (.)")).tolist() == [0, 1, 1]
    for pattern, problem in (
        ("(", "no regular expression"),
        ("clinic", r"does not match the source a/hospital1_x\.png"),
        ("hospital", "finds only the centre hospital"),
    ):
        with pytest.raises(ProbeError, match=problem):
            centres_of(data(pattern))
