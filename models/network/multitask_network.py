"""Encoder, shared parts and heads as one network."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from datamodules.core.errors import ConfigError
from datamodules.core.records import TaskKind
from datamodules.stream.batch import Part
from models.config import ModelConfig
from models.network.dense_heads import DetectionHead, SegmentationHead
from models.network.detection_grid import DetectionGrid
from models.network.encoder import Encoder
from models.network.heads import ClassificationHead, Features, Head, RegressionHead
from models.network.neck import Decoder, Neck, block
from models.tasks import TaskSpec


class MultiTaskNetwork(nn.Module):
    """One encoder, a shared neck, decoder and tower, and one head per task.

    The network input is square, with sides of `image_size` pixels.

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
        self.decoder: Decoder | None = None
        if self.neck is not None and TaskKind.SEGMENTATION in kinds:
            self.decoder = Decoder(width, len(self.neck.strides))
        detects = TaskKind.DETECTION in kinds
        # Two convolutions for all detection tasks, at any stride.
        self.tower = nn.Sequential(block(width), block(width)) if detects else None
        self.heads = nn.ModuleDict({spec.module_name: self._make_head(spec) for spec in specs})
        if config.channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, parts: Sequence[Part]) -> tuple[dict[str, Tensor], Tensor]:
        """Encode normalised images (n, 3, height, width); run each dataset's heads on its part.

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
        self._add_dense_features(encoded.pyramid, parts, features)
        outputs = {
            spec.key: head(features[part.dataset]) for part, spec, head in self.tasks_in(parts)
        }
        # The pyramid alone leaves the encoder's last layers unused. Shared modules are always in
        # the anchor: a zero more is free, and which layers a level uses is a detail of the neck.
        present = {part.dataset for part in parts}
        shared = (self.neck, self.decoder, self.tower)
        unused: list[nn.Module] = [module for module in shared if module is not None]
        unused += [self.head(spec) for spec in self.specs if spec.dataset not in present]
        return outputs, zero_grad_anchor(unused) + 0.0 * encoded.embedding.float().sum()

    def tasks_in(self, parts: Sequence[Part]) -> Iterator[tuple[Part, TaskSpec, Head]]:
        """Yield the tasks of a micro-batch with their heads."""
        for part in parts:
            yield from ((part, spec, self.head(spec)) for spec in self.tasks_of(part))

    def tasks_of(self, part: Part) -> list[TaskSpec]:
        """Return the tasks of the dataset that a part belongs to."""
        specs = [spec for spec in self.specs if spec.dataset == part.dataset]
        if not specs:
            raise ConfigError(f"dataset {part.dataset}: the model has no head for it")
        return specs

    def head(self, spec: TaskSpec) -> Head:
        """Return the head of a task."""
        head: Head = self.heads[spec.module_name]  # type: ignore[assignment]
        return head

    def trained_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the trainable parameters that all tasks share, and those of the heads."""
        of_heads = {id(p) for p in self.heads.parameters()}
        trained = [p for p in self.parameters() if p.requires_grad]
        shared = [p for p in trained if id(p) not in of_heads]
        return shared, [p for p in trained if id(p) in of_heads]

    def _make_head(self, spec: TaskSpec) -> Head:
        task, dim = spec.task, self.encoder.embedding_dim
        if task.kind is TaskKind.REGRESSION:
            return RegressionHead(task, dim)
        if self.neck is not None and task.kind is TaskKind.SEGMENTATION:
            return SegmentationHead(task, self.neck.width, spec.class_weights)
        if self.neck is not None and task.kind is TaskKind.DETECTION:
            object_px = task.object_size_um / spec.mpp
            level = self.neck.level(object_px)
            grid = DetectionGrid(self.neck.strides[level], object_px)
            return DetectionHead(task, self.neck.width, level, grid)
        return ClassificationHead(task, dim)

    def _add_dense_features(
        self, pyramid: list[Tensor], parts: Sequence[Part], features: dict[str, Features]
    ) -> None:
        """Run neck, decoder and tower only on the images that need them."""
        levels_of: dict[str, set[int]] = {part.dataset: set() for part in parts}
        segmentation = set()
        for part, _, head in self.tasks_in(parts):
            if isinstance(head, DetectionHead):
                levels_of[part.dataset].add(head.level)
            elif isinstance(head, SegmentationHead):
                segmentation.add(part.dataset)
        segmented = [part for part in parts if part.dataset in segmentation]
        dense = [p for p in parts if p.dataset in segmentation or levels_of[p.dataset]]
        if self.neck is None or not dense:
            return
        rows = [slice(part.start, part.stop) for part in dense]
        levels = self.neck([gather(feature_map, rows) for feature_map in pyramid])
        rows_of = consecutive(dense)
        if self.decoder is not None and segmented:
            rows = [rows_of[part.dataset] for part in segmented]
            decoded = self.decoder([gather(level, rows) for level in levels])
            for dataset, own_rows in consecutive(segmented).items():
                features[dataset].dense = decoded[own_rows]
        if self.tower is None:
            return
        for level in sorted({level for used in levels_of.values() for level in used}):
            detected = [part for part in dense if level in levels_of[part.dataset]]
            rows = [rows_of[part.dataset] for part in detected]
            towered = self.tower(gather(levels[level], rows))
            for dataset, own_rows in consecutive(detected).items():
                features[dataset].tower[level] = towered[own_rows]


def zero_grad_anchor(modules: Iterable[nn.Module]) -> Tensor:
    """Return a zero that gives every trainable parameter of the modules a gradient of zero.

    Distributed training waits for a gradient of every parameter, including those that a
    micro-batch does not use.
    """
    entries = [
        parameter.reshape(-1)[0].float()
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    return 0.0 * torch.stack(entries).sum() if entries else torch.zeros(())


def gather(tensor: Tensor, rows: Sequence[slice]) -> Tensor:
    """Return the rows of several slices as one tensor, without a copy if they are adjacent."""
    if all(a.stop == b.start for a, b in pairwise(rows)):
        return tensor[rows[0].start : rows[-1].stop]
    return torch.cat([tensor[r] for r in rows])


def consecutive(parts: Sequence[Part]) -> dict[str, slice]:
    """Return the rows of each dataset where only the images of these parts follow one another."""
    rows, start = {}, 0
    for part in parts:
        rows[part.dataset] = slice(start, start + len(part))
        start += len(part)
    return rows
