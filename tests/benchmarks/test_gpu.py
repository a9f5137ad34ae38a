"""The script for a GPU, rehearsed on a CPU with tiny sizes."""

from __future__ import annotations

import pytest

from benchmarks.gpu import PARTS, TINY, measure

SLOW = ("demo",)


@pytest.mark.slow
@pytest.mark.parametrize("part", [name for name in PARTS if name not in SLOW])
def test_every_part_of_the_script_for_a_gpu_runs_on_a_cpu(part):
    found = PARTS[part](TINY, TINY.encoders[0])
    assert found
    if part == "synchronisations":
        assert found == {"count": None, "places": []}  # a CPU has nothing to count
    if part == "resume":
        assert found["largest_difference_repeated"] == 0.0
        assert found["bit_for_bit"] and found["within_tolerance"]
    if part == "two_processes":
        assert found["images_per_second"] > 0
        assert found["largest_difference_between_ranks"] == 0.0  # of ranks with other images
    if part == "loading":
        assert found["loaded_images_per_second"] > 0 and 0 <= found["waiting"] <= 1
    if part == "variants":
        assert all(one["images_per_second"] > 0 for one in found.values())


def test_a_part_that_fails_is_in_the_result_with_its_reason_and_a_cpu_is_named():
    broken = type(TINY)(("no_such_encoder",), *list(vars(TINY).values())[1:])
    result = measure(broken, ("compiled",))
    assert "no_such_encoder" in result["no_such_encoder"]["compiled"]["failed"]
    assert result["not_measured_on_a_gpu"] and "not measured on a GPU" in result["machine"]
