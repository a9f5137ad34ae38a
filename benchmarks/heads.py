"""Training steps with our heads against segmentation_models_pytorch and torchvision (goal e).

The same encoder (timm's resnet18, torchvision's for its detectors), the same images and targets;
a step is normalised images to loss, backward, and AdamW. What the peers leave out is left out:
no augmentation, no clipping, no Lightning.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import Rows, rates, ratio, row, seconds
from benchmarks.training import batch, specs
from datamodules.core.records import TaskKind
from datamodules.stream.batch import MultiTaskBatch, Part
from models.config import ModelConfig, OptimConfig
from models.module import MultiTaskModule
from models.tasks import TaskSpec

Step = Callable[[], None]
ENCODER = "resnet18"


def measure(folder: Path, side: int = 192, images: int = 4, rounds: int = 3) -> Rows:
    """Images per second of every head, and their ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: Rows = []
    try:
        import segmentation_models_pytorch as smp
        from torchvision.models import detection
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
        from torchvision.ops.feature_pyramid_network import LastLevelP6P7
    except ImportError as error:
        print(f"left out: {error}", file=sys.stderr)
        return rows
    of_kind = {spec.task.kind: spec for spec in specs(3)}
    classes = len(of_kind[TaskKind.DETECTION].task.classes)

    def backbone() -> nn.Module:  # as torchvision builds its own detectors
        levels: dict[str, Any] = {
            "returned_layers": [2, 3, 4],
            "extra_blocks": LastLevelP6P7(256, 256),
        }
        return resnet_fpn_backbone(
            backbone_name=ENCODER, weights=None, trainable_layers=5, **levels
        )

    sizes: dict[str, Any] = {"min_size": side, "max_size": side, "num_classes": classes + 1}
    peers: dict[TaskKind, dict[str, nn.Module]] = {
        TaskKind.SEGMENTATION: {
            "smp Unet": smp.Unet(f"tu-{ENCODER}", encoder_weights=None, classes=classes),
            "smp FPN": smp.FPN(f"tu-{ENCODER}", encoder_weights=None, classes=classes),
        },
        TaskKind.DETECTION: {
            "torchvision RetinaNet": detection.RetinaNet(backbone(), **sizes),
            "torchvision FCOS": detection.FCOS(backbone(), **sizes),
        },
    }
    for kind, models in peers.items():
        given = batch([of_kind[kind]], images, side)
        x = torch.randn(images, 3, side, side)
        target = given.parts[0].targets["t"]
        ways = {"ours": ours(of_kind[kind], x, given.parts[0], side)}
        make = segmenter if kind is TaskKind.SEGMENTATION else detector
        ways |= {name: make(model, x, target) for name, model in models.items()}
        times = seconds(ways, rounds)
        found = {"per_second": rates(times, images)}
        for name in models:
            what = f"images/s of a training step, our {kind.value} against {name}"
            rows.append(row("e", what, ratio(times, "ours", name), 1.0, **found))
            found = {}
    return rows


def stepping(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """A step of the optimizer on this loss."""
    optimizer = torch.optim.AdamW(model.train().parameters())

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(spec: TaskSpec, x: Tensor, part: Part, side: int) -> Step:
    """Our network with the head of one task."""
    module = MultiTaskModule([spec], ModelConfig(ENCODER, "random"), OptimConfig(), side)
    given = MultiTaskBatch(x.contiguous(memory_format=torch.channels_last), [part])

    def loss() -> Tensor:
        module.step_losses, module._unlogged = [], []
        return module.micro_batch_loss(given)

    return stepping(module, loss)


def segmenter(model: nn.Module, x: Tensor, target: Tensor) -> Step:
    """A model that returns classes of pixels."""
    model = model.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    loss = nn.CrossEntropyLoss()
    return stepping(model, lambda: loss(model(x), target.long()))


def detector(model: nn.Module, x: Tensor, target: Any) -> Step:
    """A detector of torchvision, which returns its losses."""
    places = [target.image == place for place in range(len(x))]
    given = [{"boxes": target.boxes[at], "labels": target.labels[at] + 1} for at in places]
    return stepping(model, lambda: sum(model(list(x), given).values()))
