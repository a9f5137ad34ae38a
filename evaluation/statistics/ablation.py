"""Which dataset helps? Probes of encoders that were trained with and without it, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datamodules.core.errors import ProbeError
from evaluation.statistics.predictions import Predictions, read_predictions
from evaluation.statistics.summary import DatasetStatistics, summarise

ALL = "all"
"""The variant that is trained on every dataset, which the others are compared with."""

COLUMNS = [
    "dataset",
    "variant",
    "metric",
    "area",
    "area_low",
    "area_high",
    "difference",
    "difference_low",
    "difference_high",
    "verdict",
]


@dataclass(frozen=True)
class Ablation:
    """What an ablation found.

    Attributes:
        studies: one per unseen dataset; its encoders are the variants, `ALL` first, and the
            baselines that were probed beside it.
        seeds: of the trainings behind each variant.
    """

    studies: tuple[DatasetStatistics, ...]
    seeds: tuple[int, ...]

    @property
    def caution(self) -> str:
        """What the intervals do not cover; empty where they cover it."""
        if len(self.seeds) == 1:
            return (
                "One training per variant: the intervals cover test patients and labelled "
                "images, and not what another seed of the training would change."
            )
        if len(self.seeds) < 5:
            return (
                f"{len(self.seeds)} trainings per variant: their spread is in the intervals, but "
                "estimated from few."
            )
        return ""


def compare_variants(
    runs: Mapping[str, Sequence[Path]], seeds: Sequence[int], resamples: int, seed: int
) -> Ablation:
    """Compare variants on the same subsets and test groups, with the study's headline predictor.

    Args:
        runs: folders of the probed runs of each variant, one per training seed, `ALL` first.
        seeds: of the trainings, in the same order.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ProbeError: a run is not probed, or the runs did not do the same test.
    """
    found = {
        variant: [_by_dataset(folder) for folder in folders] for variant, folders in runs.items()
    }
    studies = []
    for dataset in found[ALL][0]:
        per_variant = {variant: [run[dataset] for run in of] for variant, of in found.items()}
        result = side_by_side(per_variant)
        studies.append(summarise(result, resamples, seed, trainings=len(seeds)))
    return Ablation(tuple(studies), tuple(seeds))


def side_by_side(variants: Mapping[str, Sequence[Predictions]]) -> Predictions:
    """One result whose encoders are variants, and whose repeats are those of all trainings.

    Each variant contributes its own encoder, `ALL` also the baselines that stand beside it.
    Repeats of one training follow each other.

    Raises:
        ProbeError: test images, label counts or repeats differ.
    """
    first = variants[ALL][0]
    for runs in variants.values():
        for run in runs:
            same = run.sizes == first.sizes and all(
                np.array_equal(getattr(run, name), getattr(first, name))
                for name in ("rows", "fold", "group", "truth", "n_train", "seeds")
            )
            if not same:
                raise ProbeError(
                    f"{first.dataset}: {run.encoders[0]} and {first.encoders[0]} did not do the "
                    "same test; probe both with the same settings and data"
                )
    beside = range(1, len(first.encoders))
    names = [*variants, *(first.encoders[e] for e in beside)]
    rows = [
        np.concatenate([run.predicted[0] for run in runs], axis=1) for runs in variants.values()
    ]
    rows += [np.concatenate([run.predicted[e] for run in variants[ALL]], axis=1) for e in beside]
    return replace(
        first,
        encoders=tuple(names),
        baseline=ALL,
        predicted=np.stack(rows),
        seeds=np.concatenate([run.seeds for run in variants[ALL]], axis=1),
    )


def table_of(ablation: Ablation) -> pd.DataFrame:
    """One row per unseen dataset and variant: area under its curve and difference to `ALL`."""
    rows: list[tuple[object, ...]] = []
    for study in ablation.studies:
        compared = {one.encoder: one for one in study.comparisons}
        for curve in study.curves:
            area = (curve.area.value, curve.area.low, curve.area.high)
            facts = (study.dataset, curve.encoder, study.metric.name, *area)
            if curve.encoder == ALL:
                rows.append((*facts, 0.0, 0.0, 0.0, 0))
                continue
            one = compared[curve.encoder]
            rows.append((*facts, one.area.value, one.area.low, one.area.high, one.verdict))
    return pd.DataFrame(rows, columns=COLUMNS)


def _joined(runs: Sequence[Predictions], encoder: int) -> NDArray[Any]:
    """One encoder's predictions (sizes, trainings * repeats, rows)."""
    return np.concatenate([run.predicted[encoder] for run in runs], axis=1)


def _by_dataset(folder: Path) -> dict[str, Predictions]:
    """The headline results of a run by dataset."""
    results = read_predictions(folder / "probe_predictions.h5")
    return {
        result.dataset: result for result in results if result.predictor == results[0].predictor
    }
