"""The benchmarks of speed run, and their table says what was measured and what was wanted."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

from benchmarks.run import NAMES, PAGE, RESULT, comparable, page, table
from benchmarks.timing import facts, ratio, row, seconds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"), [("reading", (50, 1)), ("probing", (1, 1)), ("loading", (64, 1))]
)
def test_a_benchmark_gives_ratios_with_their_goals(name, sizes, tmp_path):
    rows = import_module(f"benchmarks.{name}").measure(tmp_path, *sizes)
    assert rows and all(found["value"] > 0 for found in rows)
    assert {found["goal"] for found in rows} <= set("abcdefghi")


def test_every_benchmark_of_the_runner_exists():
    for name in NAMES:
        assert callable(import_module(f"benchmarks.{name}").measure)


def test_ways_take_turns_and_the_first_round_does_not_count():
    seen = []
    times = seconds({"one": lambda: seen.append(1), "two": lambda: seen.append(2)}, rounds=3)
    assert seen == [1, 2] * 4
    assert [len(spent) for spent in times.values()] == [3, 3]
    assert ratio({"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 4.0, 4.0]}, "ours", "theirs") == 2.0


def test_the_table_has_goal_and_met_and_names_what_failed():
    rows = [row("b", "slow", 0.5, 0.9), row("a", "light", 1.0, 2.0, most=True)]
    measured = {"date": "2026-01-01", "load_average": 0.1, "rows": rows}
    result = {**facts(), "runs": {"loading": measured, "reading": {**measured, "rows": []}}}
    lines = table(result).splitlines()
    assert lines[2] == "| a | light | 1.00 | at most 2 | yes |"
    assert lines[3] == "| b | slow | 0.50 | at least 0.9 | no |"
    assert "reading" in lines[4] and lines[4].endswith("| no |")
    assert "measured on a GPU" in page(result)


def test_the_page_shows_the_committed_results():
    assert PAGE.read_text() == page(json.loads(RESULT.read_text()))


def test_earlier_rows_stay_beside_new_ones_of_the_same_machine_and_versions_only():
    earlier = json.loads(RESULT.read_text())
    assert comparable(earlier, {**earlier, "date": "2030-01-01"}) == earlier["runs"]
    assert comparable(earlier, {**earlier, "versions": {"python": "3.14"}}) == {}
