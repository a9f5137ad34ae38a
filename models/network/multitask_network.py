"""Encoder, shared parts and heads as one network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from datamodules.core.errors import ConfigError
from datamodules.core.records import TaskKind
from datamodules.stream.batch import Part
from models.config import ModelConfig
from models.network.dense_heads import DetectionHead, SegmentationHead
from models.network.detection import Grid
from models.network.encoder import Encoder
from models.network.heads import ClassificationHead, Features, Head, RegressionHead
from models.network.neck import Decoder, Neck, Tower, touch
from models.tasks import TaskSpec


class MultiTaskModel(nn.Module):
    """One encoder, a shared neck, decoder and tower, and one head per task.

    Args:
        specs: all tasks.
        config: the encoder and what follows it.
        image_size: side of the network input in pixels.

    Raises:
        ConfigError: no task, or two of the same name.
        EncoderError, WeightsError: see `Encoder`.
    """

    def __init__(self, specs: Sequence[TaskSpec], config: ModelConfig, image_size: int) -> None:
        super().__init__()
        names = [spec.module_name for spec in specs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise ConfigError(f"tasks must exist and differ; given twice: {', '.join(twice)}")
        self.specs = list(specs)
        self.encoder = Encoder(config, image_size)
        kinds = {spec.task.kind for spec in specs}
        dense = bool(kinds & {TaskKind.SEGMENTATION, TaskKind.DETECTION})
        encoder, width = self.encoder, config.neck_channels
        self.neck = Neck(encoder.channels, encoder.reductions, width) if dense else None
        self.decoder = (
            Decoder(width, len(self.neck.strides))
            if self.neck is not None and TaskKind.SEGMENTATION in kinds
            else None
        )
        self.tower = Tower(width) if TaskKind.DETECTION in kinds else None
        self.heads = nn.ModuleDict({spec.module_name: self._make_head(spec) for spec in specs})
        if config.channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, parts: Sequence[Part]) -> tuple[dict[str, Tensor], Tensor]:
        """Encode all images once and run each dataset's heads on its slice.

        Args:
            images: normalised (n, 3, height, width).
            parts: which images belong to which dataset.

        Returns:
            Raw outputs by task key, and a zero through which every parameter that this
            micro-batch does not use still takes part in the backward pass.
        """
        encoded = self.encoder(images)
        size = (images.shape[-2], images.shape[-1])
        features = {
            part.dataset: Features(encoded.embedding[part.start : part.stop], size=size)
            for part in parts
        }
        self._dense_features(encoded.pyramid, parts, features)
        outputs: dict[str, Tensor] = {}
        for part in parts:
            for spec in self.tasks_of(part):
                outputs[spec.key] = self.head(spec)(features[part.dataset])
        # A pyramid alone leaves the encoder's last layers unused.
        return outputs, touch(self._unused(parts)) + 0.0 * encoded.embedding.float().sum()

    def tasks_of(self, part: Part) -> list[TaskSpec]:
        """The tasks of the dataset that a part belongs to."""
        found = [spec for spec in self.specs if spec.dataset == part.dataset]
        if not found:
            raise ConfigError(f"dataset {part.dataset}: the model has no head for it")
        return found

    def head(self, spec: TaskSpec) -> Head:
        """The head of a task."""
        head = self.heads[spec.module_name]
        if not isinstance(head, Head):
            raise TypeError(f"{spec.key}: {type(head).__name__} is no head")
        return head

    def shared_and_own(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Trainable weights that all tasks share, and those of the heads."""
        own = {id(p) for p in self.heads.parameters()}
        trained = [p for p in self.parameters() if p.requires_grad]
        return [p for p in trained if id(p) not in own], [p for p in trained if id(p) in own]

    def _make_head(self, spec: TaskSpec) -> Head:
        task, dim = spec.task, self.encoder.embedding_dim
        if task.kind is TaskKind.REGRESSION:
            return RegressionHead(task, dim)
        if self.neck is not None and task.kind is TaskKind.SEGMENTATION:
            return SegmentationHead(task, self.neck.width, spec.class_weights)
        if self.neck is not None and task.kind is TaskKind.DETECTION:
            object_px = task.object_size_um / spec.mpp
            level = self.neck.level(object_px)
            grid = Grid(self.neck.strides[level], object_px)
            return DetectionHead(task, self.neck.width, level, grid)
        return ClassificationHead(task, dim)

    def _dense_features(
        self, pyramid: list[Tensor], parts: Sequence[Part], features: dict[str, Features]
    ) -> None:
        """Run neck, decoder and tower on the images that need them, and no others."""
        wanted = [p for p in parts if self._segments(p) or self._levels(p)]
        if self.neck is None or not wanted:
            return
        rows = [slice(p.start, p.stop) for p in wanted]
        levels = self.neck([gather(feature_map, rows) for feature_map in pyramid])
        starts = _starts(wanted)
        own = {p.dataset: slice(s, s + len(p)) for p, s in zip(wanted, starts, strict=True)}

        drawn = [p for p in wanted if self._segments(p)]
        if self.decoder is not None and drawn:
            taken = [own[p.dataset] for p in drawn]
            dense = self.decoder([gather(feature_map, taken) for feature_map in levels])
            for part, start in zip(drawn, _starts(drawn), strict=True):
                features[part.dataset].dense = dense[start : start + len(part)]
        if self.tower is None:
            return
        for level in sorted({number for p in wanted for number in self._levels(p)}):
            found = [p for p in wanted if level in self._levels(p)]
            tower = self.tower(gather(levels[level], [own[p.dataset] for p in found]))
            for part, start in zip(found, _starts(found), strict=True):
                features[part.dataset].tower[level] = tower[start : start + len(part)]

    def _segments(self, part: Part) -> bool:
        return any(spec.task.kind is TaskKind.SEGMENTATION for spec in self.tasks_of(part))

    def _levels(self, part: Part) -> set[int]:
        heads = [self.head(spec) for spec in self.tasks_of(part)]
        return {head.level for head in heads if isinstance(head, DetectionHead)}

    def _unused(self, parts: Sequence[Part]) -> list[nn.Module]:
        """Modules beyond the encoder that no gradient of these parts reaches.

        The shared ones are always counted among them: a zero more costs nothing, and which of a
        pyramid's layers a level uses is the pyramid's own affair.
        """
        present = {part.dataset for part in parts}
        shared = [m for m in (self.neck, self.decoder, self.tower) if m is not None]
        idle = [self.head(spec) for spec in self.specs if spec.dataset not in present]
        return [*shared, *idle]


def gather(tensor: Tensor, rows: Sequence[slice]) -> Tensor:
    """Rows of several slices as one tensor; without a copy where they already are one."""
    joined = all(a.stop == b.start for a, b in pairwise(rows))
    if joined:
        return tensor[rows[0].start : rows[-1].stop]
    return torch.cat([tensor[r] for r in rows])


def _starts(parts: Sequence[Part]) -> list[int]:
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part))
    return starts[:-1]
