"""Panels and counts as W&B's own media: masks and boxes as layers, interactive charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import wandb
from pytorch_lightning.loggers import Logger

from datamodules.core.records import TaskKind
from evaluation.figures.confusion import ConfusionCounts, PrecisionRecall
from evaluation.figures.samples import Boxes, Panel, Verdict, objects_of, verdicts
from lightning_app.loggers.wandb_results import wandb_loggers

_POINTS = 200  # of a curve at most: W&B's charts slow down with more


def log_panels(loggers: Iterable[Logger], panels: Sequence[Panel], step: int) -> None:
    """Log each panel's images, with masks and boxes of truth and prediction as layers.

    Args:
        loggers: of the run; only those of W&B are used.
        panels: what to show.
        step: optimizer steps so far.
    """
    for logger in wandb_loggers(loggers):
        media: dict[str, Any] = {f"panels/{p.spec.key}": panel_images(p) for p in panels}
        logger.experiment.log({**media, "trainer/global_step": step})


def log_counts(loggers: Iterable[Logger], counts: Sequence[ConfusionCounts], step: int) -> None:
    """Log confusion matrices and curves of precision and recall as charts."""
    for logger in wandb_loggers(loggers):
        charts: dict[str, Any] = {}
        for one in counts:
            key, classes = one.spec.key, one.spec.task.classes
            if one.confusion is not None:
                charts[f"confusion/{key}"] = confusion_chart(key, classes, one.confusion)
            if curves := one.curves():
                charts[f"precision_recall/{key}"] = recall_chart(key, curves)
        logger.experiment.log({**charts, "trainer/global_step": step})


def panel_images(panel: Panel) -> list[Any]:
    """Return one wandb.Image per image of a panel."""
    layers: list[dict[str, Any]] = [{} for _ in range(len(panel))]
    kind, classes = panel.spec.task.kind, panel.spec.task.classes
    if kind is TaskKind.SEGMENTATION:
        layers = [{"masks": _masks(panel, row)} for row in range(len(panel))]
    elif kind is TaskKind.DETECTION:
        layers = [
            {
                "boxes": {
                    "truth": _boxes(truth, classes, ("", ", not found")),
                    "prediction": _boxes(predicted, classes, (", hit", ", false alarm")),
                }
            }
            for truth, predicted in objects_of(panel)
        ]
    return [
        wandb.Image(image, caption=_caption(verdict), **layer)
        for image, verdict, layer in zip(panel.images, verdicts(panel), layers, strict=True)
    ]


def confusion_chart(title: str, classes: Sequence[str], matrix: Any) -> Any:
    """Return W&B's confusion matrix, from counts."""
    rows = [[classes[t], classes[p], int(count)] for (t, p), count in np.ndenumerate(matrix)]
    columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
    return wandb.plot_table(
        "wandb/confusion_matrix/v1",
        wandb.Table(columns=columns, data=rows),
        {str(name): str(name) for name in columns},
        {"title": title},
    )


def recall_chart(title: str, curves: Sequence[PrecisionRecall]) -> Any:
    """Return W&B's chart of precision against recall, a line per class."""
    rows = []
    for curve in curves:
        points = np.linspace(0, len(curve.recall) - 1, min(_POINTS, len(curve.recall)))
        rows += [
            [curve.name, float(curve.recall[i]), float(curve.precision[i])]
            for i in points.round().astype(int)
        ]
    return wandb.plot_table(
        "wandb/area-under-curve/v0",
        wandb.Table(columns=["class", "recall", "precision"], data=rows),
        {"x": "recall", "y": "precision", "class": "class"},
        {"title": title, "x-axis-title": "Recall", "y-axis-title": "Precision"},
    )


def _masks(panel: Panel, row: int) -> dict[str, Any]:
    task = panel.spec.task
    labels = {**dict(enumerate(task.classes)), task.ignore_index: "no label"}
    layers: dict[str, Any] = {"truth": panel.target, "prediction": panel.prediction}
    return {
        name: {"mask_data": values[row].numpy().astype(np.uint8), "class_labels": labels}
        for name, values in layers.items()
    }


def _boxes(boxes: Boxes, classes: Sequence[str], suffixes: tuple[str, str]) -> dict[str, Any]:
    """Return a layer of boxes, with the suffixes for matched and other ones in their captions."""
    entries = []
    for i, (left, top, right, bottom) in enumerate(boxes.xyxy.tolist()):
        entry: dict[str, Any] = {
            "position": {"minX": left, "minY": top, "maxX": right, "maxY": bottom},
            "domain": "pixel",
            "class_id": int(boxes.labels[i]),
            "box_caption": classes[boxes.labels[i]] + suffixes[0 if boxes.matched[i] else 1],
        }
        if boxes.scores is not None:
            entry["scores"] = {"score": float(boxes.scores[i])}
        entries.append(entry)
    return {"box_data": entries, "class_labels": dict(enumerate(classes))}


def _caption(verdict: Verdict) -> str:
    if not verdict.truth:
        return verdict.predicted
    mark = "" if verdict.right is None else (", right" if verdict.right else ", wrong")
    return f"truth {verdict.truth}; predicted {verdict.predicted}{mark}"
