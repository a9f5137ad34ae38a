"""How often the 95 % intervals hold the truth, on made-up studies whose truth is known.

Patients differ from one another and so do draws of the labelled images; both shift sensitivity
and specificity of two encoders. It is the long form of a test in
tests/evaluation/statistics/test_statistics.py. Run from the checkout:

    python benchmarks/interval_coverage.py [STUDIES]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from evaluation.statistics.bootstrap import interval, mean_scores, resampled_scores
from evaluation.statistics.metrics import F1
from tests.support.probe_tables import patients

RESAMPLES = 1000
CASES = [(6, 10), (10, 10), (20, 10), (50, 10), (20, 5), (20, 3)]
"""(test groups, repeats)."""
RESULT = Path(__file__).parent / "results" / "interval_coverage.json"


def main() -> None:
    """Simulate and write the shares."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rng = np.random.default_rng(11)
    truth = np.mean([mean_scores(F1, patients(rng, 4000, 5))[:, 0] for _ in range(50)], axis=0)
    cases = [coverage(rng, truth, groups, repeats, studies) for groups, repeats in CASES]
    content = {
        "studies": studies,
        "resamples": RESAMPLES,
        "nominal": 0.95,
        "true_f1": [round(float(value), 4) for value in truth],
        "cases": cases,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(content, indent=2))


def coverage(
    rng: np.random.Generator, truth: np.ndarray, groups: int, repeats: int, studies: int
) -> dict[str, float]:
    """Shares of the studies whose intervals hold the true score and the true difference."""
    held = np.zeros(2)
    for study in range(studies):
        parts = patients(rng, groups, repeats)
        point = mean_scores(F1, parts)[:, 0]
        drawn = resampled_scores(F1, parts, RESAMPLES, study)[..., 0]
        score = interval(point[0], drawn[..., 0], groups)
        difference = interval(point[0] - point[1], drawn[..., 0] - drawn[..., 1], groups)
        held[0] += score.low <= truth[0] <= score.high
        held[1] += difference.low <= truth[0] - truth[1] <= difference.high
    score_share, difference_share = (round(float(share), 3) for share in held / studies)
    return {
        "groups": groups,
        "repeats": repeats,
        "score": score_share,
        "paired_difference": difference_share,
    }


if __name__ == "__main__":
    main()
