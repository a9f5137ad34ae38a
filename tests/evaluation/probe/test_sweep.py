"""The sweep agrees with a plain loop, in parallel, interrupted or under a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from joblib import register_parallel_backend
from joblib._parallel_backends import ThreadingBackend
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import f1_score, mean_squared_error

from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.config import ProbeConfig
from evaluation.probe.folds import make_folds, nested_order, seed_from, strata_of
from evaluation.probe.jobs import Journal
from evaluation.probe.sweep import find_baseline, plan, sweep
from evaluation.statistics.predictions import read_predictions, tidy, write_predictions
from tests.support.probe_tables import table

SETTINGS = ProbeConfig(sizes=[6, 20, 500], repeats=2, trees=5, jobs=1, backend="threading")


@pytest.mark.parametrize(
    ("kind", "classes", "folds"),
    [
        (TaskKind.CLASSIFICATION, 2, 3),
        (TaskKind.CLASSIFICATION, 4, 0),
        (TaskKind.REGRESSION, 0, 2),
    ],
)
def test_a_sweep_is_identical_to_a_plain_loop(
    kind: TaskKind, classes: int, folds: int, tmp_path: Path
) -> None:
    data = table("ours", kind, classes, folds)
    found = tidy(sweep([data], SETTINGS, tmp_path / "journal"))
    expected = []
    split = make_folds("idc", kind, data.targets, data.groups, data.split, folds, 0)
    for fold in split:
        strata = strata_of(kind, data.targets[fold.pool])
        for size in (6, 20, 0):
            for repeat in range(2):
                seed = seed_from(0, "idc", fold.number, repeat)
                order = fold.pool[nested_order(strata, data.groups[fold.pool], seed)]
                rows = np.sort(order[:size] if size else order)
                if kind is TaskKind.REGRESSION:
                    forest = RandomForestRegressor(5, max_features=1 / 3)
                else:
                    forest = RandomForestClassifier(5)
                forest.set_params(random_state=seed_from(seed, "forest", size))
                forest.fit(data.features[rows], data.targets[rows])
                predicted, truth = forest.predict(data.features[fold.test]), data.targets[fold.test]
                if kind is TaskKind.REGRESSION:
                    value = mean_squared_error(truth, predicted)
                else:
                    average = "binary" if classes == 2 else "macro"
                    value = f1_score(truth, predicted, average=average, zero_division=0)
                expected.append((fold.number, size, len(rows), repeat, value))
    forests = found[found.predictor == "forest"]
    columns = forests[["fold", "size", "n_train", "repeat", "value"]].to_numpy()
    np.testing.assert_allclose(columns, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        (TaskKind.CLASSIFICATION, 2),
        (TaskKind.CLASSIFICATION, 4),
        (TaskKind.REGRESSION, 0),
    ],
)
def test_scores_in_the_table_are_reproducible_with_scikit_learn_alone(
    kind: TaskKind, classes: int, tmp_path: Path
) -> None:
    data = table("ours", kind, classes, folds=0)
    (result,) = sweep([data], SETTINGS, tmp_path / "journal")
    found = tidy([result]).query("predictor == 'forest' and size == 0")
    known, tested = data.split < 2, data.split == 2
    regression = kind is TaskKind.REGRESSION
    for row in found.itertuples():
        options = {"n_estimators": 5, "random_state": row.seed}
        forest = (
            RandomForestRegressor(max_features=1 / 3, **options)
            if regression
            else RandomForestClassifier(**options)
        )
        forest.fit(data.features[known], data.targets[known])
        predicted = forest.predict(data.features[tested])
        np.testing.assert_array_equal(result.predicted[0, -1, row.repeat], predicted)
        value = (
            mean_squared_error(data.targets[tested], predicted)
            if regression
            else f1_score(
                data.targets[tested], predicted, average="macro" if classes > 2 else "binary"
            )
        )
        assert row.value == pytest.approx(value, rel=1e-14)
        assert row.n_train == known.sum()
    assert len(found) == 2


def test_processes_threads_and_the_order_of_the_encoders_change_nothing(tmp_path: Path) -> None:
    ours, imagenet = table("ours"), table("imagenet:resnet18", noise=2)
    one = tidy(sweep([ours, imagenet], SETTINGS, tmp_path / "a"))
    processes = replace(SETTINGS, jobs=2, backend="loky")
    other = tidy(sweep([imagenet, ours], processes, tmp_path / "b"))
    keys = ["predictor", "encoder", "fold", "size", "repeat"]
    left, right = (t.sort_values(keys).reset_index(drop=True) for t in (one, other))
    assert left.equals(right)


class Cluster(ThreadingBackend):  # type: ignore[misc]
    """A registered backend that can only return results together."""

    supports_return_generator = False


def test_a_registered_backend_gives_equal_results_and_an_unknown_one_an_error(
    tmp_path: Path,
) -> None:
    register_parallel_backend("cluster", Cluster)
    here = tidy(sweep([table()], SETTINGS, tmp_path / "a"))
    there = tidy(sweep([table()], replace(SETTINGS, backend="cluster", jobs=2), tmp_path / "b"))
    assert here.equals(there)
    with pytest.raises(ProbeError, match=r"probe\.backend=lokki: joblib knows .*loky"):
        sweep([table()], replace(SETTINGS, backend="lokki"), tmp_path / "c")


def test_every_encoder_gets_the_same_subsets(tmp_path: Path) -> None:
    same = table("ours")
    twin = replace(same, encoder="twin", key="twin")
    (result,) = sweep([same, twin], SETTINGS, tmp_path / "journal")
    np.testing.assert_array_equal(result.predicted[0], result.predicted[1])
    assert len({result.predicted[0, 0, r].tobytes() for r in range(2)}) == 2, "repeats differ"


def test_an_interrupted_sweep_continues_to_the_same_result(tmp_path: Path) -> None:
    tables = [table("ours"), table("random:x")]
    whole = sweep(tables, SETTINGS, tmp_path / "whole")
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 * 2 * 3 * 2
    torn = tmp_path / "torn"
    torn.write_bytes(b"".join(lines[:7]) + lines[7][: len(lines[7]) // 2])
    assert len(Journal(torn)) == 7
    continued = sweep(tables, SETTINGS, torn)
    assert tidy(continued).equals(tidy(whole))
    np.testing.assert_array_equal(continued[0].predicted, whole[0].predicted)
    assert len(torn.read_bytes().splitlines()) == 25, "17 forests ran again, no more"
    sweep(tables, SETTINGS, torn)
    assert len(torn.read_bytes().splitlines()) == 25, "nothing is left to run"


def test_a_journal_ignores_a_line_with_a_wrong_checksum(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.add("a", np.arange(3.0))
    journal.add("b", np.arange(4, dtype=np.uint8))
    text = (tmp_path / "journal").read_text()
    (tmp_path / "journal").write_text(text.replace('"crc": ', '"crc": 1', 1))
    again = Journal(tmp_path / "journal")
    assert "a" not in again
    np.testing.assert_array_equal(again["b"], [0, 1, 2, 3])


def test_other_settings_do_not_reuse_old_forests(tmp_path: Path) -> None:
    few = sweep([table()], SETTINGS, tmp_path / "journal")
    more = sweep([table()], replace(SETTINGS, trees=6), tmp_path / "journal")
    fresh = sweep([table()], replace(SETTINGS, trees=6), tmp_path / "fresh")
    assert tidy(more).equals(tidy(fresh))
    assert not tidy(more).equals(tidy(few))


def test_more_repeats_leave_the_first_ones_as_they_were(tmp_path: Path) -> None:
    few = tidy(sweep([table()], SETTINGS, tmp_path / "journal"))
    more = tidy(sweep([table()], replace(SETTINGS, repeats=3), tmp_path / "journal"))
    assert more[more["repeat"] < 2].reset_index(drop=True).equals(few)


def test_a_spent_budget_leaves_a_complete_smaller_study_that_lists_what_is_missing(
    tmp_path: Path,
) -> None:
    tables = [table("ours", folds=2), table("imagenet:x", folds=2)]
    settings = replace(SETTINGS, repeats=3)
    whole = sweep(tables, settings, tmp_path / "whole")
    lines = {
        line.split(b'"')[3]: line
        for line in (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    }
    ended = replace(settings, budget=1e-9)
    with pytest.raises(ProbeError, match=r"raise probe\.budget"):
        sweep(tables, ended, tmp_path / "empty")

    def partial(count: int) -> Path:
        """The journal after a budget: whole repeats first, small sizes before large."""
        path = tmp_path / f"first-{count}"
        path.write_bytes(b"".join(list(in_order.values())[:count]))
        return path

    long = tmp_path / "budget"
    sweep(tables, replace(settings, budget=1e9), long)
    in_order = {line.split(b'"')[3]: line for line in long.read_bytes().splitlines(keepends=True)}
    assert in_order.keys() == lines.keys()
    (two,) = sweep(tables, ended, partial(2 * 12 + 5))
    assert (two.repeats, two.sizes) == (2, (6, 20, 0))
    assert two.left_out == ("repeats 3 to 3 did not fit into the budget",)
    np.testing.assert_array_equal(two.predicted, whole[0].predicted[:, :, :2])
    (one,) = sweep(tables, ended, partial(9))
    assert (one.repeats, one.sizes) == (1, (6, 20))
    assert one.left_out[0] == "sizes all did not fit into the budget"


def test_the_constant_prediction_is_the_best_one_without_an_image(tmp_path: Path) -> None:
    binary = tidy(sweep([table(folds=0)], SETTINGS, tmp_path / "a"))
    data = table(folds=0)
    truth = data.targets[data.groups >= 8]
    constant = binary[binary.predictor == "constant"]
    assert set(constant["value"]) == {f1_score(truth, np.ones_like(truth))}
    real = table(kind=TaskKind.REGRESSION, folds=0)
    regression = tidy(sweep([real], SETTINGS, tmp_path / "b"))
    mean = real.targets[real.groups < 8].astype(np.float64).mean()
    expected = ((real.targets[real.groups >= 8] - mean) ** 2).mean()
    value = regression[regression.predictor == "constant"]["value"].iloc[0]
    assert value == pytest.approx(expected, rel=1e-12)


def test_predictions_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    tables = [table("ours"), table("imagenet:x")]
    tables += [table(t, TaskKind.REGRESSION, dataset="bpq") for t in ("ours", "imagenet:x")]
    results = sweep(tables, SETTINGS, tmp_path / "journal")
    write_predictions(tmp_path / "p.h5", results)
    again = read_predictions(tmp_path / "p.h5")
    assert tidy(again).equals(tidy(results))
    assert [(r.dataset, r.baseline, r.metric.name) for r in again] == [
        ("idc", "imagenet:x", "f1"),
        ("bpq", "imagenet:x", "mse"),
    ]
    with pytest.raises(ProbeError, match="probe again"):
        read_predictions(tmp_path / "none.h5")


def test_no_test_image_is_of_a_training_patient(tmp_path: Path) -> None:
    data = table(folds=3)
    (result,) = sweep([data], SETTINGS, tmp_path / "journal")
    for fold in make_folds("idc", data.kind, data.targets, data.groups, data.split, 3, 0):
        tested = result.rows[result.fold == fold.number]
        np.testing.assert_array_equal(tested, fold.test)
        assert set(data.groups[tested]).isdisjoint(data.groups[fold.pool])


def test_tables_that_do_not_fit_together_are_an_error(tmp_path: Path) -> None:
    ours = table("ours")
    shuffled = replace(table("imagenet:x"), targets=ours.targets[::-1])
    with pytest.raises(ProbeError, match="different images"):
        sweep([ours, shuffled], SETTINGS, tmp_path / "journal")
    with pytest.raises(ProbeError, match="each encoder once"):
        sweep([ours, table("x", dataset="other")], SETTINGS, tmp_path / "journal")
    with pytest.raises(ProbeError, match="nothing to probe"):
        sweep([], SETTINGS, tmp_path / "journal")
    with pytest.raises(ProbeError, match="sizes must be"):
        sweep([ours], replace(SETTINGS, sizes=[-1]), tmp_path / "journal")


def test_imagenet_weights_are_preferred_to_random_ones_as_baseline() -> None:
    assert find_baseline(["runs/a", "random:r", "imagenet:r"]) == "imagenet:r"
    assert find_baseline(["runs/a", "random:r"]) == "random:r"
    assert find_baseline(["runs/a"]) is None


def test_targets_of_test_images_do_not_decide_which_images_carry_labels() -> None:
    data = table("ours", TaskKind.REGRESSION, 0, 2)
    folds = make_folds("idc", data.kind, data.targets, data.groups, data.split, 2, 0)
    for number, fold in enumerate(folds):
        targets = data.targets.copy()
        targets[fold.test] = np.exp(3 * targets[fold.test]) + 100
        other = replace(data, targets=targets)
        chosen, again = (
            [job.train.tolist() for job in plan(one, folds, SETTINGS) if job.fold == fold.number]
            for one in (data, other)
        )
        assert chosen == again, number
