"""Two ranks learn what one process learns that sees the images of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = REPOSITORY / "tests" / "support" / "train_ranks.py"

CASES = {"K=all": (0, 1, "auto"), "K=1": (1, 1, "ddp"), "K=2, 2 rounds": (2, 2, "ddp")}
CASES["K=2, sharded"] = (2, 1, "fsdp")


@pytest.fixture(scope="module")
def trained(small_folder: Callable[[str], Path]) -> Path:
    """Every case on two ranks and on one with twice the images, in folders "<case>, <ranks>"."""
    folder = small_folder("ranks")
    runs = {}
    for case, (per_batch, rounds, strategy) in CASES.items():
        settings = [
            f"data.tasks_per_batch={per_batch}",
            f"trainer.rounds_per_step={rounds}",
            "trainer.gradients_every=6",
        ]
        halves = [*settings, "data.batch_size=2", f"trainer.strategy={strategy}"]
        runs[f"{case}, 2"] = (2, halves)
        runs[f"{case}, 1"] = (1, [*settings, "data.batch_size=4"])
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(SCRIPT), str(folder), json.dumps(runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def ends(trained: Path, case: str, ranks: int) -> list[dict[str, Any]]:
    """What each rank of a run ended with."""
    folder = trained / f"{case}, {ranks}"
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((value - other[key]).abs().max().item() for key, value in one.items())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_end_equal_and_match_one_process_with_both_halves(
    trained: Path, case: str
) -> None:
    first, second = ends(trained, case, 2)
    (whole,) = ends(trained, case, 1)

    for key, value in first["state"].items():
        assert torch.equal(value, second["state"][key]), key
    moved = largest_difference(whole["state"], whole["start"])
    assert moved > 1e-3
    assert largest_difference(first["state"], whole["state"]) < 1e-3 * moved
    assert first["scores"] == pytest.approx(second["scores"])
    assert first["scores"] == pytest.approx(whole["scores"], abs=0.05)

    assert any(key.endswith("/map") for key in first["final"])
    assert first["final"] == pytest.approx(whole["final"], abs=0.05)

    # Five tasks with ten pairs; sharded weights are not compared.
    assert len(first["gradients"]) == (0 if "sharded" in case else 15)
    for name, values in first["gradients"].items():
        assert len(values) == 2, name
        assert values == pytest.approx(whole["gradients"][name], rel=0.02, abs=0.01), name

    for (step, dataset, rows), (_, same, other_rows), (_, union, all_rows) in zip(
        first["seen"], second["seen"], whole["seen"], strict=True
    ):
        assert dataset == same == union, f"step {step}: ranks use different datasets"
        assert sorted([*rows, *other_rows]) == sorted(all_rows)
