"""Intervals have nominal coverage, differences are paired, and nothing is extrapolated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, mean_squared_error

from evaluation.statistics.bootstrap import (
    Interval,
    interval,
    mean_scores,
    percentiles,
    resampled_scores,
    tail,
)
from evaluation.statistics.efficiency import efficiency_of, labels_needed
from evaluation.statistics.metrics import F1, MACRO_F1, MSE, parts_by_group, score, score_of_parts
from evaluation.statistics.summary import area, score_rows, summarise
from tests.support.probe_tables import patients, predictions

labels_of = hnp.arrays(np.int64, 24, elements=st.integers(0, 3))


@settings(deadline=None)  # the machine may be busy
@given(labels_of, labels_of, hnp.arrays(np.int64, 24, elements=st.integers(0, 5)))
def test_scores_agree_with_scikit_learn_for_any_grouping(
    truth: np.ndarray, predicted: np.ndarray, group: np.ndarray
) -> None:
    expected = {
        F1: f1_score(truth == 1, predicted == 1, zero_division=0),
        MACRO_F1: f1_score(truth, predicted, average="macro", zero_division=0),
        MSE: mean_squared_error(truth, predicted),
    }
    for metric, value in expected.items():
        positive = 1 if metric is F1 else None
        assert score(metric, truth, predicted, positive) == pytest.approx(value, abs=1e-12)
        parts = parts_by_group(metric, truth, predicted[None], group, 6, positive)
        assert score_of_parts(metric, parts.sum(axis=1))[0] == pytest.approx(value, abs=1e-12)


def test_a_resample_equals_repeating_the_rows_of_its_groups() -> None:
    result = predictions()
    parts = parts_by_group(F1, result.truth, result.predicted, result.group, 12, 1)
    both, of_groups_alone, of_repeats_alone = resampled_scores(F1, parts, 4, seed=3)
    rng = np.random.default_rng(3)
    of_groups = rng.multinomial(12, np.full(12, 1 / 12), 4)
    of_repeats = rng.multinomial(5, np.full(5, 1 / 5), 4)
    for b in range(4):
        rows = np.repeat(np.arange(120), of_groups[b][result.group])
        for e in range(2):
            for s in range(3):
                each = [
                    f1_score(result.truth[rows], result.predicted[e, s, r, rows]) for r in range(5)
                ]
                assert both[b, e, s] == pytest.approx(np.average(each, weights=of_repeats[b]))
                assert of_groups_alone[b, e, s] == pytest.approx(np.mean(each))
                all_rows = [f1_score(result.truth, result.predicted[e, s, r]) for r in range(5)]
                assert of_repeats_alone[b, e, s] == pytest.approx(
                    np.average(all_rows, weights=of_repeats[b])
                )


def test_scores_and_differences_are_means_over_repeats_of_all_test_images() -> None:
    result = predictions()
    found = summarise(result, resamples=200)
    expected = np.array(
        [
            [
                np.mean([f1_score(result.truth, predicted) for predicted in repeats])
                for repeats in sizes
            ]
            for sizes in result.predicted
        ]
    )
    got = [[point.value for point in curve.scores] for curve in found.curves]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    (comparison,) = found.comparisons
    np.testing.assert_allclose(
        [d.value for d in comparison.differences], expected[0] - expected[1], rtol=1e-9
    )
    assert comparison.verdict == 1
    assert found.constant == f1_score(result.truth, np.ones(120))
    for point in (*found.curves[0].scores, *comparison.differences, comparison.area):
        assert point.low <= point.value <= point.high


def test_rows_have_each_score_and_its_difference_to_the_baseline_or_none() -> None:
    found = summarise(predictions(), resamples=50)
    ours, baseline = found.curves
    rows = score_rows(found)
    assert [row["encoder"] for row in rows] == ["ours"] * 3 + ["imagenet:x"] * 3
    assert [row["n_train"] for row in rows] == [10.0, 30.0, 90.0] * 2
    assert [row["size"] for row in rows] == [10, 30, 0] * 2
    assert [row["value"] for row in rows[3:]] == [score.value for score in baseline.scores]
    (first, *_), (compared,) = ours.scores, found.comparisons
    assert (rows[0]["low"], rows[0]["high"]) == (first.low, first.high)
    assert [row["difference"] for row in rows[:3]] == [d.value for d in compared.differences]
    assert rows[0]["difference_high"] == compared.differences[0].high
    assert {row[f"difference{end}"] for row in rows[3:] for end in ("", "_low", "_high")} == {None}


def test_a_smaller_error_is_a_gain() -> None:
    (comparison,) = summarise(predictions(MSE), resamples=200).comparisons
    assert comparison.area.high < 0
    assert comparison.verdict == 1
    assert comparison.efficiency[0].needed.value > 10


def test_differences_of_paired_encoders_vary_less_than_their_scores() -> None:
    result = predictions()
    twin = replace(result, predicted=result.predicted[[0, 0]])
    found = summarise(twin, resamples=200)
    assert found.comparisons[0].area == Interval(0.0, 0.0, 0.0)
    assert found.comparisons[0].verdict == 0
    assert found.curves[0].area.low < found.curves[0].area.high


def test_the_same_study_gives_the_same_intervals() -> None:
    assert summarise(predictions(), 100, seed=1) == summarise(predictions(), 100, seed=1)
    assert summarise(predictions(), 100, seed=1) != summarise(predictions(), 100, seed=2)


def test_the_area_is_the_mean_score_along_the_logarithm_of_the_labels() -> None:
    labels = np.array([10.0, 100.0, 10_000.0])
    assert area(labels, np.array([0.5, 0.5, 0.5])) == pytest.approx(0.5)
    assert area(labels, np.array([0.0, 0.6, 0.6])) == pytest.approx((0.3 + 2 * 0.6) / 3)
    assert area(labels[:1], np.array([0.4])) == 0.4


def test_labels_needed_are_interpolated_and_never_extrapolated() -> None:
    labels = np.array([10.0, 100.0, 1000.0])
    curve = np.array([0.5, 0.7, 0.6])
    wanted = np.array([0.4, 0.5, 0.6, 0.7, 0.71])
    found = labels_needed(labels, np.broadcast_to(curve, (5, 3)), wanted, True)
    np.testing.assert_allclose(found, [0, 10, 10**1.5, 100, np.inf])
    errors = labels_needed(labels, np.broadcast_to(-curve, (5, 3)), -wanted, False)
    np.testing.assert_allclose(errors, found)
    one = labels_needed(labels[:1], np.array([[0.5], [0.5]]), np.array([0.4, 0.6]), True)
    np.testing.assert_allclose(one, [0, np.inf])


def test_sample_efficiency_out_of_range_is_a_bound() -> None:
    result = predictions(groups=40, repeats=8)
    texts = [e.text for e in summarise(result, 200).comparisons[0].efficiency]
    assert texts[-1] == "more than 90"
    turned = replace(result, baseline="ours")
    assert summarise(turned, 200).comparisons[0].efficiency[0].text == "fewer than 10"


@pytest.mark.parametrize(
    ("n", "needed", "text"),
    [
        (10, (52, 31, 89), "5.2 times fewer labels (95 %: 3.1 to 8.9)"),
        (10, (52, 31, np.inf), "5.2 times fewer labels (95 %: 3.1 to more than 9.0)"),
        (10, (np.inf, np.inf, np.inf), "more than 9.0 times fewer labels"),
        (30, (40, 0, 80), "1.3 times fewer labels (95 %: fewer than 0.3 to 2.7)"),
        (30, (15, 12, 20), "2.0 times more labels (95 %: 1.5 to 2.5)"),
        (30, (0, 0, 20), "more than 3.0 times more labels (95 %: 1.5 to more than 3.0)"),
        (10, (0, 0, 20), "not known: the baseline reaches it with its fewest labels"),
    ],
)
def test_labels_saved_are_a_factor_with_its_interval(
    n: float, needed: tuple[float, float, float], text: str
) -> None:
    labels = np.array([10.0, 30.0, 90.0])
    assert efficiency_of(n, Interval(*needed), labels).factor_text == text


def test_one_patient_is_never_enough_for_a_verdict() -> None:
    (comparison,) = summarise(predictions(MSE, groups=1), 100).comparisons
    assert comparison.area.high < 0
    assert comparison.verdict == 0


def test_a_class_whose_images_lie_in_one_fold_adds_a_caution() -> None:
    whole = predictions(groups=12)
    two = {"fold_numbers": np.array([1, 2]), "n_train": np.array([[10, 10], [30, 30], [60, 60]])}
    two["seeds"] = np.zeros((3, 5, 2), np.int64)
    spread = replace(whole, **two, fold=1 + whole.rows % 2)
    apart = replace(whole, **two, fold=1 + whole.truth)
    assert summarise(spread, 50).cautions == ()
    (first, second) = summarise(apart, 50).cautions
    assert "All images of class 0 are tested in one fold" in first and "class 1" in second


def test_few_patients_and_few_repeats_add_a_caution() -> None:
    assert summarise(predictions(groups=12), 50).cautions == ()
    assert "Only 3 test groups" in summarise(predictions(groups=3), 50).cautions[0]
    assert "One test group only" in summarise(predictions(groups=1), 50).cautions[0]
    assert "Only 2 draws" in summarise(predictions(repeats=2), 50).cautions[0]
    left_out = replace(predictions(), left_out=("sizes all did not fit into the budget",))
    assert summarise(left_out, 50).cautions == ("Sizes all did not fit into the budget.",)


def test_intervals_from_few_groups_cut_off_less() -> None:
    tails = [tail(groups) for groups in (2, 3, 6, 20, 100, 10_000)]
    assert tails == sorted(tails)
    assert tails[0] < 1e-4
    assert tails[-1] == pytest.approx(0.025, abs=1e-4)
    drawn = np.random.default_rng(0).normal(size=1000)
    assert percentiles(0, drawn, 3).low == drawn.min()


@pytest.mark.parametrize("groups", [6, 20])
def test_intervals_have_nominal_coverage_when_patients_are_correlated(
    groups: int,
) -> None:
    rng = np.random.default_rng(7)
    truth = np.mean([mean_scores(F1, patients(rng, 2000, 5))[:, 0] for _ in range(20)], axis=0)
    covered = []
    for study in range(400):
        parts = patients(rng, groups, 10)
        point = mean_scores(F1, parts)[:, 0]
        drawn = resampled_scores(F1, parts, 1000, study)[..., 0]
        alone = interval(point[0], drawn[..., 0], groups)
        paired = interval(point[0] - point[1], drawn[..., 0] - drawn[..., 1], groups)
        covered.append(
            [
                alone.low <= truth[0] <= alone.high,
                paired.low <= truth[0] - truth[1] <= paired.high,
            ]
        )
    share = np.mean(covered, axis=0)
    assert (share >= 0.92).all() and (share <= 0.985).all(), share
