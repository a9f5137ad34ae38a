"""Features of a store against a bare timm loop over the same decoded batch (goal f)."""

from __future__ import annotations

from pathlib import Path

import timm
import torch

from benchmarks.timing import Rows, ratio, row, seconds
from models.config import ModelConfig
from models.inference.loading import freeze
from models.network.encoder import Encoder

BATCH, SIDE, NAME = 16, 128, "resnet18"


def measure(folder: Path, batches: int = 4, rounds: int = 5) -> Rows:
    """Rate of embedding batches of bytes."""
    torch.set_num_threads(1)
    encoder = Encoder(ModelConfig(NAME, "random"), SIDE)
    frozen = freeze(encoder, NAME)
    plain = timm.create_model(NAME, num_classes=0).eval().to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).view(1, 1, 1, 3) for values in (encoder.mean, encoder.std))
    images = torch.randint(0, 256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8)

    def bare() -> None:
        for _ in range(batches):
            with torch.inference_mode():
                plain(((images.float() / 255 - mean) / std).permute(0, 3, 1, 2))

    times = seconds(
        {"ours": lambda: [frozen.embed(images) for _ in range(batches)], "bare": bare}, rounds
    )
    return [row("f", "features against a bare timm loop", ratio(times, "ours", "bare"), 0.95)]
