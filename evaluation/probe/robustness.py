"""Robustness index: are features ordered by class, or by centre and scanner?

The index of PathoROB (Kömen et al., arXiv 2507.17845; de Jong et al., arXiv 2501.18055): among the
k nearest neighbours of all images, those of the same class from other centres (SO) over these and
those of other classes from the same centre (OS). 1 is ordered by class alone, 0 by centre alone.
PathoROB chooses k by dataset; here it is `probe.robustness_k`. Neighbours of the same patient never
count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.probe.features import Features
from evaluation.probe.folds import nested_order, seed_from, strata_of
from evaluation.statistics.bootstrap import percentiles

if TYPE_CHECKING:
    from datamodules.base import PathologyDataModule
    from datamodules.reader import DatasetReader

IMAGES = 5000  # at most, chosen by class and patient in turn, the same for every encoder


def centres_of(data: DatasetReader | PathologyDataModule) -> NDArray[np.int64]:
    """Return the number of each row's centre, (n,), from `data.unseen.<dataset>.centre`.

    The pattern is looked for in the path of each source, then in the name of its group.

    Raises:
        ProbeError: the pattern is none, nothing matches, or there is only one centre.
    """
    key, pattern = f"data.unseen.{data.name}.centre", data.config.centre
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise ProbeError(f"{key}={pattern}: no regular expression ({error})") from error
    names = []
    sources, groups = data.store.source_names, data.store.group_names
    rows = np.column_stack([data.store.source_numbers, data.store.group])
    pairs, row_of = np.unique(rows, axis=0, return_inverse=True)
    for source, group in ((sources[one], groups[other]) for one, other in pairs):
        match = search(source) or search(group)
        if match is None:
            problem = f"does not match the source {source} nor its group {group}"
            raise ProbeError(f"{key}={pattern}: {problem}")
        names.append(match[1] if match.re.groups else match[0])
    numbers = np.unique(names, return_inverse=True)[1][row_of]
    if len(np.unique(numbers)) < 2:
        raise ProbeError(f"{key}={pattern}: finds only the centre {names[0]}; it takes two")
    return np.asarray(numbers, np.int64)


def robustness_rows(
    tables: Sequence[Features],
    centres: NDArray[np.int64],
    resamples: int,
    seed: int,
    k: int = 20,
) -> list[dict[str, Any]]:
    """Return one row per encoder of a dataset: its index with an interval over patients.

    Chance is the index of features without any order. All encoders get the same images and the
    same resamples of patients.

    Args:
        tables: of one dataset.
        centres: number of each table row's centre, (n,).
        resamples: of the bootstrap.
        seed: of the bootstrap.
        k: neighbours of each image.

    Raises:
        ProbeError: targets are no classes, or no pair of images has what the index counts.
    """
    first = tables[0]
    if first.kind is not TaskKind.CLASSIFICATION or first.dense:
        raise ProbeError(
            f"data.unseen.{first.dataset}.centre: the robustness index needs a class for each "
            "image; leave it out"
        )
    order = nested_order(
        strata_of(first.kind, first.targets),
        first.groups,
        seed_from(seed, first.dataset, "robustness"),
    )
    rows = np.sort(order[:IMAGES])
    group, centre = first.groups[rows], centres[rows]
    alike = first.targets[rows][:, None] == first.targets[rows]
    near = centre[:, None] == centre
    allowed = group[:, None] != group
    same_other, other_same = alike & ~near & allowed, ~alike & near & allowed
    totals = same_other.sum(), other_same.sum()
    if not min(totals):
        raise ProbeError(
            f"data.unseen.{first.dataset}.centre: no class lies in two centres, or no centre has "
            "two classes, among images of different groups; leave it out"
        )
    names, number = np.unique(group, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    result = []
    for table in tables:
        features = np.asarray(table.features[rows], np.float32)
        features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        similar = np.where(allowed, features @ features.T, -np.inf)
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
        real = np.isfinite(np.take_along_axis(similar, nearest, 1))
        counts = [
            np.bincount(number, (np.take_along_axis(pairs, nearest, 1) & real).sum(1), len(names))
            for pairs in (same_other, other_same)
        ]
        index = percentiles(
            float(_index(*counts)), _index(*(drawn * c for c in counts)), len(names)
        )
        result.append(
            {
                "dataset": table.dataset,
                "encoder": table.encoder,
                **index.columns("index"),
                "chance": float(totals[0] / sum(totals)),
                "k": k,
                "images": len(rows),
                "groups": len(names),
                "centres": len(np.unique(centre)),
            }
        )
    return result


def _index(same_other: NDArray[Any], other_same: NDArray[Any]) -> NDArray[np.float64]:
    """Return SO / (SO + OS) of counts (..., groups), 0.5 where both are missing."""
    good, bad = same_other.sum(-1, dtype=np.float64), other_same.sum(-1, dtype=np.float64)
    return np.asarray(
        np.divide(good, good + bad, out=np.full_like(good, 0.5), where=good + bad > 0)
    )
