"""Predictors beside the forest agree with scikit-learn on the same subsets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, mean_squared_error
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.config import ProbeConfig
from evaluation.probe.folds import make_folds, nested_order, seed_from, strata_of
from evaluation.probe.predictors import new_predictor
from evaluation.probe.sweep import sweep
from evaluation.report.leaderboard import boards
from evaluation.report.report import write_report
from evaluation.report.run import read_run
from evaluation.statistics.predictions import Predictions, read_predictions, tidy, write_predictions
from tests.support.probe_tables import table

ALL = ProbeConfig(
    sizes=[6, 30],
    repeats=2,
    trees=5,
    jobs=1,
    backend="threading",
    predictors=["knn", "forest", "linear"],
)


def plain(predictor: str, kind: TaskKind, known: np.ndarray, targets: np.ndarray):
    """The same predictor in plain scikit-learn, and its transformation of the features."""
    if predictor == "linear":
        centre, spread = known.mean(0), np.sqrt(known.var(0).mean())
        model = Ridge() if kind is TaskKind.REGRESSION else LogisticRegression(max_iter=1000)
        return model.fit((known - centre) / spread, targets), lambda x: (x - centre) / spread
    kind_of = KNeighborsRegressor if kind is TaskKind.REGRESSION else KNeighborsClassifier
    model = kind_of(
        min(20, len(known)), metric="cosine", weights=lambda distance: np.exp(-distance / 0.07)
    )
    return model.fit(known, targets), lambda x: x


@pytest.mark.parametrize("predictor", ["linear", "knn"])
@pytest.mark.parametrize("kind", [TaskKind.CLASSIFICATION, TaskKind.REGRESSION])
def test_further_predictors_agree_with_scikit_learn_on_the_same_subsets(
    predictor: str, kind: TaskKind, tmp_path: Path
) -> None:
    data = table("ours", kind, 3, 2)
    found = tidy(sweep([data], ALL, tmp_path / "journal"))
    expected = []
    for fold in make_folds("idc", kind, data.targets, data.groups, data.split, 2, 0):
        strata = strata_of(kind, data.targets[fold.pool])
        for size in (6, 30):
            for repeat in range(2):
                seed = seed_from(0, "idc", fold.number, repeat)
                order = fold.pool[nested_order(strata, data.groups[fold.pool], seed)]
                rows = np.sort(order[:size])
                model, prepare = plain(
                    predictor, kind, data.features[rows].astype(float), data.targets[rows]
                )
                predicted = model.predict(prepare(data.features[fold.test].astype(float)))
                truth = data.targets[fold.test]
                if kind is TaskKind.REGRESSION:
                    value = mean_squared_error(truth, predicted)
                else:
                    value = f1_score(truth, predicted, average="macro", zero_division=0)
                expected.append((fold.number, size, repeat, value))
    values = found[found.predictor == predictor][["fold", "size", "repeat", "value"]].to_numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def test_a_linear_model_tolerates_a_feature_that_hardly_varies_among_the_labelled_images() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    targets = features[:, 0]
    features[:10, 4] *= 1e-4  # as a filter that fires on none of the ten
    model = new_predictor("linear", TaskKind.REGRESSION, targets[:10])
    predicted = model.fit(features[:10], targets[:10]).predict(features[10:])
    assert mean_squared_error(targets[10:], predicted) < 0.2 * targets[10:].var()


@pytest.mark.parametrize("name", ["forest", "linear", "knn"])
def test_a_predictor_trained_on_one_class_predicts_that_class(name: str) -> None:
    features, targets = np.eye(3, dtype=np.float32), np.array([2, 2, 2])
    model = new_predictor(name, TaskKind.CLASSIFICATION, targets, trees=3)
    assert model.fit(features, targets).predict(features).tolist() == [2, 2, 2]


def test_further_predictors_do_not_change_the_forests_or_their_journal(
    tmp_path: Path,
) -> None:
    tables = [table("ours"), table("imagenet:x")]
    alone = sweep(tables, replace(ALL, predictors=["forest"]), tmp_path / "journal")
    lines = len((tmp_path / "journal").read_bytes().splitlines())
    together = sweep(tables, ALL, tmp_path / "journal")
    assert [result.predictor for result in together] == ["forest", "knn", "linear"]
    assert tidy(together[:1]).equals(tidy(alone))
    assert len((tmp_path / "journal").read_bytes().splitlines()) == 3 * lines
    found = tidy(together)
    assert len(found[found.predictor == "constant"]) == len(tidy(alone).query("encoder == ''"))


def test_a_budget_that_ends_before_a_further_predictor_is_noted(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    sweep([table()], replace(ALL, predictors=["forest"]), journal)
    (forest,) = sweep([table()], replace(ALL, budget=1e-9), journal)
    assert forest.predictor == "forest"
    assert forest.left_out == (
        "predictor knn did not fit into the budget",
        "predictor linear did not fit into the budget",
    )


@pytest.mark.parametrize("names", [[], ["tree"], ["knn", "knn"]])
def test_invalid_lists_of_predictors_are_an_error(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="forest, linear, knn"):
        sweep([table()], replace(ALL, predictors=names), tmp_path / "journal")


def study(folder: Path) -> list[Predictions]:
    folder.mkdir()
    tables = [table("ours"), table("imagenet:x", noise=3)]
    results = sweep(tables, ALL, folder / "journal")
    write_predictions(folder / "probe_predictions.h5", results)
    return results


def test_a_report_keeps_the_forest_as_headline_and_shows_the_others_beside_it(
    tmp_path: Path,
) -> None:
    results = study(tmp_path / "run")
    assert [r.predictor for r in read_predictions(tmp_path / "run/probe_predictions.h5")] == [
        "forest",
        "knn",
        "linear",
    ]
    page = write_report(tmp_path / "run").read_text()
    numbers = json.loads((tmp_path / "run/report.json").read_text())
    assert "A random forest learns" in page
    assert page.index("Other predictors") < page.index("idc: linear model")
    assert len(numbers["findings"]) == 1
    assert [probe["predictor"] for probe in numbers["probes"]] == ["forest", "knn", "linear"]
    made = {path.name for path in (tmp_path / "run/figures").glob("*.png")}
    assert made == {f"learning-curve-idc{end}.png" for end in ("", "-knn", "-linear")}
    assert len(results) == 3


def test_a_leaderboard_never_ranks_one_predictor_against_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        study(tmp_path / name)
    found = boards([read_run(tmp_path / name) for name in ("a", "b")])
    assert [board.predictor for board in found] == ["forest", "knn", "linear"]
    for board in found:
        assert sorted(entry.encoder for entry in board.entries) == ["imagenet:x", "ours"]
