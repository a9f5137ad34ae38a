"""Detections of a slide as GeoJSON that QuPath imports: one object a line, in pixels of level 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from datamodules.core.records import Task
from datamodules.display.overlays import class_colours
from datamodules.slides.tiles import SlideTiles
from models.network.dense_heads import NMS_IOU
from models.network.detection_grid import Detections
from models.network.heads import Prediction


class Objects:
    """Collects the objects whose centre lies in the middle of a tile, each of them once.

    They stay in memory, 28 bytes an object.

    Args:
        task: the detection task.
        tiles: where the tiles lie.
        least_score: lowest score that counts.
    """

    def __init__(self, task: Task, tiles: SlideTiles, least_score: float) -> None:
        self.task, self.tiles, self.least_score = task, tiles, least_score
        self._found: list[tuple[NDArray[Any], ...]] = []

    def add(self, rows: range, prediction: Prediction) -> None:
        """Keep the detections of tiles."""
        if not isinstance(prediction, Detections):
            raise TypeError(f"{self.task.name}: expected detections")
        boxes, scores = prediction.boxes.double().numpy(), prediction.scores.numpy()
        tiles, margin = self.tiles, self.tiles.tiling.overlap // 2
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 - margin
        step = tiles.tiling.step
        corners = tiles.corners[rows.start + prediction.image.numpy()]
        whole = boxes * tiles.factor + np.tile(corners, 2)
        middle = (whole[:, :2] + whole[:, 2:]) / 2
        keep = (scores >= self.least_score) & ((centre >= 0) & (centre < step)).all(axis=1)
        keep &= ((middle >= 0) & (middle < (tiles.width, tiles.height))).all(axis=1)
        # Only objects near the border of two middles can be found twice.
        size = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
        near = np.minimum(centre, step - centre).min(axis=1, initial=step) < size
        labels = prediction.labels.numpy()
        self._found.append((whole[keep].astype(np.float32), scores[keep], labels[keep], near[keep]))

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Return boxes in pixels of level 0, (n, 4), scores and labels, without duplicates."""
        empty = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        none = (*empty, np.zeros(0, np.int64), np.zeros(0, bool))
        boxes, scores, labels, near = (
            np.concatenate(parts) for parts in zip(none, *self._found, strict=True)
        )
        doubtful = np.flatnonzero(near)
        parts = (torch.from_numpy(v[doubtful]) for v in (boxes, scores, labels))
        kept = doubtful[batched_nms(*parts, NMS_IOU).numpy()]
        keep = ~near
        keep[kept] = True
        return boxes[keep], scores[keep], labels[keep]

    def write(self, path: Path) -> int:
        """Write the objects; return their number."""
        boxes, scores, labels = self.result()
        known = class_colours([self.task])
        look = {
            name: {"name": name, "color": [round(255 * part) for part in to_rgb(known[name])]}
            for name in self.task.classes
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.write('{"type": "FeatureCollection", "features": [')
            objects = zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
            for number, (box, score, label) in enumerate(objects):
                feature = _feature(box, score, look[self.task.classes[label]])
                file.write((",\n" if number else "\n") + json.dumps(feature))
            file.write("\n]}\n")
        return len(boxes)


def _feature(box: list[float], score: float, look: dict[str, Any]) -> dict[str, Any]:
    x0, y0, x1, y1 = (round(value, 1) for value in box)
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "detection",
            "classification": look,
            "measurements": {"score": round(score, 4)},
        },
    }
