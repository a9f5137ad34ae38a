"""Panels and tallies in W&B's own terms: masks and boxes to switch on and off, charts to hover."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import wandb
from pytorch_lightning.loggers import Logger

from datamodules.core.records import TaskKind
from evaluation.figures.confusion import Tally
from evaluation.figures.sample_predictions import Objects, Panel, Verdict, objects_of, verdicts
from lightning_app.loggers.wandb_results import wandb_loggers

_POINTS = 200  # of a curve at most: W&B's charts slow down with more


def log_panels(loggers: Iterable[Logger], panels: Sequence[Panel], step: int) -> None:
    """Log each panel's images, with masks and boxes of truth and prediction as layers.

    Args:
        loggers: of the run; those that are not W&B's are passed over.
        panels: what to show.
        step: optimizer steps so far.
    """
    for logger in wandb_loggers(loggers):
        media: dict[str, Any] = {f"panels/{p.spec.key}": panel_images(p) for p in panels}
        logger.experiment.log({**media, "trainer/global_step": step})


def log_tallies(loggers: Iterable[Logger], tallies: Sequence[Tally], step: int) -> None:
    """Log confusion matrices and curves of precision and recall as charts."""
    for logger in wandb_loggers(loggers):
        charts: dict[str, Any] = {}
        for tally in tallies:
            if tally.confusion is not None:
                charts[f"confusion/{tally.spec.key}"] = confusion_chart(tally, tally.confusion)
            if tally.curves():
                charts[f"precision_recall/{tally.spec.key}"] = recall_chart(tally)
        logger.experiment.log({**charts, "trainer/global_step": step})


def panel_images(panel: Panel) -> list[Any]:
    """One wandb.Image per image of a panel."""
    said = verdicts(panel)
    layers: list[dict[str, Any]] = [{} for _ in said]
    kind = panel.spec.task.kind
    if kind is TaskKind.SEGMENTATION:
        layers = [{"masks": _masks(panel, row)} for row in range(len(panel))]
    elif kind is TaskKind.DETECTION:
        layers = [{"boxes": _boxes(panel, one)} for one in objects_of(panel)]
    return [
        wandb.Image(image, caption=_caption(verdict), **layer)
        for image, verdict, layer in zip(panel.images, said, layers, strict=True)
    ]


def confusion_chart(tally: Tally, matrix: Any) -> Any:
    """W&B's confusion matrix, from counts."""
    classes = tally.spec.task.classes
    rows = [
        [classes[true], classes[said], int(count)] for (true, said), count in np.ndenumerate(matrix)
    ]
    columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
    return wandb.plot_table(
        "wandb/confusion_matrix/v1",
        wandb.Table(columns=columns, data=rows),
        {str(name): str(name) for name in columns},
        {"title": tally.spec.key},
    )


def recall_chart(tally: Tally) -> Any:
    """W&B's chart of precision against recall, a line per class."""
    rows = []
    for curve in tally.curves():
        points = np.linspace(0, len(curve.recall) - 1, min(_POINTS, len(curve.recall)))
        rows += [
            [curve.name, float(curve.recall[i]), float(curve.precision[i])]
            for i in points.round().astype(int)
        ]
    return wandb.plot_table(
        "wandb/area-under-curve/v0",
        wandb.Table(columns=["class", "recall", "precision"], data=rows),
        {"x": "recall", "y": "precision", "class": "class"},
        {"title": tally.spec.key, "x-axis-title": "Recall", "y-axis-title": "Precision"},
    )


def _masks(panel: Panel, row: int) -> dict[str, Any]:
    task = panel.spec.task
    labels = {**dict(enumerate(task.classes)), task.ignore_index: "no label"}
    layers: dict[str, Any] = {"truth": panel.target, "prediction": panel.prediction}
    return {
        name: {"mask_data": values[row].numpy().astype(np.uint8), "class_labels": labels}
        for name, values in layers.items()
    }


def _boxes(panel: Panel, one: Objects) -> dict[str, Any]:
    classes = panel.spec.task.classes
    labels = dict(enumerate(classes))
    truth = [
        _box(box, int(label), f"{classes[label]}{'' if found else ', not found'}")
        for box, label, found in zip(one.truth, one.truth_labels, one.found, strict=True)
    ]
    said = [
        {
            **_box(box, int(label), f"{classes[label]}, {'hit' if hit else 'false alarm'}"),
            "scores": {"score": float(score)},
        }
        for box, label, score, hit in zip(
            one.said, one.said_labels, one.scores, one.hit, strict=True
        )
    ]
    return {
        "truth": {"box_data": truth, "class_labels": labels},
        "prediction": {"box_data": said, "class_labels": labels},
    }


def _box(xyxy: Any, label: int, caption: str) -> dict[str, Any]:
    left, top, right, bottom = (float(value) for value in xyxy)
    return {
        "position": {"minX": left, "minY": top, "maxX": right, "maxY": bottom},
        "domain": "pixel",
        "class_id": label,
        "box_caption": caption,
    }


def _caption(verdict: Verdict) -> str:
    if not verdict.truth:
        return verdict.said
    mark = "" if verdict.right is None else (", right" if verdict.right else ", wrong")
    return f"truth {verdict.truth}; predicted {verdict.said}{mark}"
