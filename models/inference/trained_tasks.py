"""The network of a run with the heads of its tasks, to predict with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from datamodules.core.errors import ConfigError, TrainingError, WeightsError
from models.module import MultiTaskModule
from models.network.dense_heads import DetectionHead
from models.network.detection_grid import Detections
from models.network.heads import Features, Prediction
from models.tasks import TaskSpec

log = logging.getLogger(__name__)


class TrainedTasks:
    """All tasks of a trained network.

    Attributes:
        path: the checkpoint.
        specs: its tasks.
        size: side of the network input in pixels.
    """

    def __init__(self, module: MultiTaskModule, path: Path, device: torch.device | str) -> None:
        self.path = path
        self.module = module.eval().requires_grad_(False).to(device)
        self.specs = module.specs
        self.size = module.model.encoder.input_size

    def chosen(self, names: Sequence[str]) -> list[TaskSpec]:
        """Return the tasks of these names ("dataset/task", or a dataset's name for all of its).

        Raises:
            ConfigError: the run has no such task.
        """
        for name in names:
            if name not in {n for spec in self.specs for n in (spec.key, spec.dataset)}:
                known = ", ".join(spec.key for spec in self.specs)
                raise ConfigError(f"--task {name}: {self.path} has no such task; it has {known}")
        return [s for s in self.specs if not names or s.key in names or s.dataset in names]

    @torch.inference_mode()
    def predict(self, images: Tensor, specs: Sequence[TaskSpec]) -> dict[str, Prediction]:
        """Return the predictions of tasks by key, on the CPU.

        Args:
            images: (n, size, size, 3) uint8, at the µm/px of the tasks.
            specs: the tasks; every one gets all images.
        """
        network = self.module.model
        x = self.module.prepare_images(images.to(self.module.device, non_blocking=True))
        encoded = network.encoder(x)
        features = Features(encoded.embedding, size=(x.shape[-2], x.shape[-1]))
        heads = {spec.key: network.head(spec) for spec in specs}
        dense = any(spec.task.kind in ("segmentation", "detection") for spec in specs)
        if network.neck is not None and dense:
            levels = network.neck(encoded.pyramid)
            if network.decoder is not None:
                features.dense = network.decoder(levels)
            for head in heads.values():
                if isinstance(head, DetectionHead) and network.tower is not None:
                    level = head.level
                    done = features.tower.get(level)
                    features.tower[level] = network.tower(levels[level]) if done is None else done
        return {key: _on_cpu(head.predict(head(features))) for key, head in heads.items()}


def load_tasks(source: Path, device: torch.device | str = "cpu") -> TrainedTasks:
    """Load the newest readable checkpoint of a run's folder, or a checkpoint.

    Its weights are the averaged ones, where training averaged them.

    Raises:
        WeightsError: there is no checkpoint: an exported encoder has no heads.
        TrainingError: all are damaged.
    """
    paths = [source]
    if source.is_dir():
        paths = sorted((source / "checkpoints").glob("step*.ckpt"), reverse=True)
    if not paths or not paths[0].is_file():
        raise WeightsError(
            f"{source}: no checkpoint of a run; heads are kept in its checkpoints/ only, not in "
            "an exported encoder. Give the folder of a run that has them, or a .ckpt file"
        )
    for path, older in zip(paths, [*paths[1:], None], strict=True):
        try:
            return TrainedTasks(MultiTaskModule.from_checkpoint(str(path)), path, device)
        except TrainingError as error:
            if older is None:
                raise
            log.warning("%s; trying %s", error, older.name)
    raise AssertionError("unreachable")


def _on_cpu(prediction: Prediction) -> Prediction:
    if isinstance(prediction, Detections):
        parts = (prediction.boxes, prediction.scores, prediction.labels, prediction.image)
        return Detections(*(part.cpu() for part in parts))
    return prediction.cpu()
