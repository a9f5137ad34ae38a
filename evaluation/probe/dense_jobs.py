"""One job of a dense probe: fit a predictor on cells, score it on pixels or objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core.records import TaskKind
from evaluation.probe.dense import Chances, DenseTruth, Integers
from evaluation.probe.jobs import Job, Place
from evaluation.probe.predictors import new_predictor

BLOCK = 32  # images whose cells are predicted at a time


def run_dense_job(
    job: Job, truth: DenseTruth, features: NDArray[np.float32], trees: int
) -> tuple[Place, NDArray[np.int32]]:
    """Fit on the labelled images; return the job's place and the counts of its test images.

    Args:
        job: its `train` and `test` are positions among the images of the truth.
        truth: what is learned and compared with.
        features: of all cells of all images of the store, (images, cells, d).
        trees: per forest.

    Returns:
        The place, and hits and predicted pixels or objects of each test image, (t, 2 * k).
    """
    predictor = _fitted(job, truth, features, job.train, trees)
    found = _chances(predictor, truth, features, job.test)
    if truth.task.kind is TaskKind.SEGMENTATION:
        counts = [truth.counts(n, chances) for n, chances in zip(job.test, found, strict=True)]
        return job.place, np.stack(counts).astype(np.int32)
    least = _threshold(job, truth, features, trees)
    counts = []
    for n, chances in zip(job.test, found, strict=True):
        scores, hit = truth.peaks(n, chances)
        counts.append(np.array([hit[scores >= least].sum(), (scores >= least).sum()]))
    return job.place, np.stack(counts).astype(np.int32)


def _threshold(job: Job, truth: DenseTruth, features: NDArray[np.float32], trees: int) -> float:
    """Return the lowest score of a detection: the best of the labelled images.

    Scores of the images that a predictor learned from are too good, so each half of the images is
    scored by a predictor of the other half. Halves are cut in the order of sources, mostly between
    patients. 0.5 where there is only one image, or nothing is found.
    """
    halves = np.array_split(job.train, 2)
    scores, hits = [], []
    for learned, other in (halves, halves[::-1]):
        if len(learned) and len(other):
            predictor = _fitted(job, truth, features, learned, trees)
            found = _chances(predictor, truth, features, other)
            pairs = [truth.peaks(n, chances) for n, chances in zip(other, found, strict=True)]
            scores += [pair[0] for pair in pairs]
            hits += [pair[1] for pair in pairs]
    if not sum(map(len, scores)):
        return 0.5
    score = np.concatenate(scores)
    order = np.argsort(-score, kind="stable")
    total = truth.counted[job.train].sum() + np.arange(1, len(order) + 1)
    f1 = 2 * np.concatenate(hits)[order].cumsum() / total
    last = np.append(np.diff(score[order]) < 0, True)  # equal scores cannot be parted
    return float(score[order][np.where(last, f1, -1).argmax()])


def _fitted(
    job: Job, truth: DenseTruth, features: NDArray[np.float32], images: Integers, trees: int
) -> Any:
    learned = truth.cells[images]
    targets = learned[learned >= 0]
    known = np.asarray(features[truth.rows[images]][learned >= 0])
    predictor = new_predictor(job.predictor, TaskKind.CLASSIFICATION, targets, trees, job.seed)
    return predictor.fit(known, targets)


def _chances(
    predictor: Any, truth: DenseTruth, features: NDArray[np.float32], images: Integers
) -> Iterator[Chances]:
    """Yield the probabilities of all classes at the cells of each image, (cells, classes)."""
    for start in range(0, len(images), BLOCK):
        block = features[truth.rows[images[start : start + BLOCK]]]
        chances = np.zeros((*block.shape[:2], len(truth.classes)), np.float32)
        found = predictor.predict_proba(block.reshape(-1, block.shape[2]))
        chances[..., predictor.classes_] = found.reshape(*block.shape[:2], -1)
        yield from chances
