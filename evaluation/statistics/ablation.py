"""Probes of encoders that were trained with and without a dataset, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datamodules.core.errors import ProbeError
from evaluation.run_files import PREDICTIONS
from evaluation.statistics.bootstrap import Interval
from evaluation.statistics.predictions import Predictions, read_predictions
from evaluation.statistics.summary import DatasetStatistics, summarise

ALL = "all"
"""The variant that is trained on every dataset; the others are compared with it."""

FEW_TRAININGS = 5  # with fewer a caution is added
SAME_TEST = ("sizes", "rows", "fold", "group", "truth", "n_train", "seeds")


@dataclass(frozen=True)
class Ablation:
    """Result of an ablation."""

    studies: tuple[
        DatasetStatistics, ...
    ]  # one per unseen dataset; encoders: variants (`ALL` first), baselines
    seeds: tuple[int, ...]  # of the trainings behind each variant

    @property
    def caution(self) -> str:
        """What the intervals do not cover; empty if they cover everything."""
        if len(self.seeds) == 1:
            return (
                "One training per variant: the intervals cover test patients and labelled "
                "images, but not the effect of another training seed."
            )
        if len(self.seeds) < FEW_TRAININGS:
            return (
                f"{len(self.seeds)} trainings per variant: the intervals include their spread, "
                "which is estimated from few."
            )
        return ""


def compare_variants(
    runs: Mapping[str, Sequence[Path]], seeds: Sequence[int], resamples: int, seed: int
) -> Ablation:
    """Compare variants on the same subsets and test groups, with the study's first predictor.

    `runs` are the folders of the probed runs of each variant, `ALL` first, one per training seed in
    the order of `seeds`; `resamples` and `seed` are those of the bootstrap.

    Raises:
        ProbeError: a run is not probed, or the runs were not tested on the same images.
    """
    results = {variant: [_by_dataset(folder) for folder in of] for variant, of in runs.items()}
    studies = []
    for dataset in results[ALL][0]:
        variants = {variant: [run[dataset] for run in of] for variant, of in results.items()}
        studies.append(summarise(side_by_side(variants), resamples, seed, trainings=len(seeds)))
    return Ablation(tuple(studies), tuple(seeds))


def _by_dataset(folder: Path) -> dict[str, Predictions]:
    results = read_predictions(folder / PREDICTIONS)
    return {one.dataset: one for one in results if one.predictor == results[0].predictor}


def side_by_side(variants: Mapping[str, Sequence[Predictions]]) -> Predictions:
    """Combine variants into one result whose encoders are the variants.

    Its repeats are those of all trainings, with the repeats of one training next to each other.
    Each variant contributes its own encoder, `ALL` also the baselines that stand beside it.

    Raises:
        ProbeError: test images, label counts or repeats differ.
    """
    first = variants[ALL][0]
    for run in (run for runs in variants.values() for run in runs):
        if not all(np.array_equal(getattr(run, n), getattr(first, n)) for n in SAME_TEST):
            raise ProbeError(
                f"{first.dataset}: {run.encoders[0]} and {first.encoders[0]} were not tested on "
                "the same images; probe both with the same settings and data"
            )
    rows = {variant: (0, runs) for variant, runs in variants.items()}
    rows |= {name: (e, variants[ALL]) for e, name in enumerate(first.encoders) if e}
    predicted = [np.concatenate([run.predicted[e] for run in of], 1) for e, of in rows.values()]
    return replace(
        first,
        encoders=tuple(rows),
        baseline=ALL,
        predicted=np.stack(predicted),
        seeds=np.concatenate([run.seeds for run in variants[ALL]], axis=1),
    )


def table_of(ablation: Ablation) -> pd.DataFrame:
    """Return one row per unseen dataset and variant: its area, and its difference to `ALL`."""
    rows: list[dict[str, Any]] = []
    for study in ablation.studies:
        compared = {one.encoder: (one.area, one.verdict) for one in study.comparisons}
        for curve in study.curves:
            difference, verdict = compared.get(curve.encoder, (Interval(0.0, 0.0, 0.0), 0))
            rows.append(
                {"dataset": study.dataset, "variant": curve.encoder, "metric": study.metric.name}
                | curve.area.columns("area")
                | difference.columns("difference")
                | {"verdict": verdict}
            )
    return pd.DataFrame(rows)
