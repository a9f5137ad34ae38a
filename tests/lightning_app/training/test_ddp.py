import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = REPOSITORY / "tests" / "support" / "train_ranks.py"


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs of this file, so that data are forged once."""
    return tmp_path_factory.mktemp("ranks")


def train(
    folder: Path,
    name: str,
    ranks: int,
    per_batch: int,
    batch: int,
    rounds: int = 1,
    strategy: str = "auto",
) -> list[dict[str, Any]]:
    out = folder / name
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "WITNESS": str(out),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(SCRIPT), str(folder)]
    command += [str(value) for value in (ranks, per_batch, batch, rounds, strategy)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((value - other[key]).abs().max().item() for key, value in one.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("per_batch", "rounds", "strategy"),
    [(0, 1, "auto"), (1, 1, "ddp"), (2, 2, "ddp"), (2, 1, "fsdp")],
    ids=["K=all", "K=1", "K=2, 2 rounds", "K=2, sharded"],
)
def test_two_ranks_end_equal_and_with_what_one_process_learns_from_both_halves(
    forged: Path, per_batch: int, rounds: int, strategy: str
) -> None:
    name = f"k{per_batch}r{rounds}"
    first, second = train(forged, f"{name}-two", 2, per_batch, 2, rounds, strategy)
    (whole,) = train(forged, f"{name}-one", 1, per_batch, 4, rounds)

    for key, value in first["state"].items():
        assert torch.equal(value, second["state"][key]), key
    moved = largest_difference(whole["state"], whole["start"])
    assert moved > 1e-3
    assert largest_difference(first["state"], whole["state"]) < 1e-3 * moved
    assert first["scores"] == pytest.approx(second["scores"])
    assert first["scores"] == pytest.approx(whole["scores"], abs=0.05)

    assert any(key.endswith("/map") for key in first["final"])
    assert first["final"] == pytest.approx(whole["final"], abs=0.05)

    # Five tasks, ten pairs of them; weights that are cut into pieces are not looked at.
    assert len(first["gradients"]) == (0 if strategy == "fsdp" else 15)
    for name, values in first["gradients"].items():
        assert len(values) == 2, name
        assert values == pytest.approx(whole["gradients"][name], rel=0.02, abs=0.01), name

    for (step, dataset, mine), (_, same, theirs), (_, union, both) in zip(
        first["seen"], second["seen"], whole["seen"], strict=True
    ):
        assert dataset == same == union, f"step {step}: ranks worked on different datasets"
        assert sorted([*mine, *theirs]) == sorted(both)
