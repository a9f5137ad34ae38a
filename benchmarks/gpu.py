"""What only a GPU shows: precision, compilation, memory, and whether the loader keeps up.

    python -m benchmarks.gpu --root FOLDER --out benchmarks/results/gpu.json

Ratios are what counts: settings are measured in turns within one run. The datasets are forged.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from datamodules.batch import MultiTaskBatch
from datamodules.multitask import MultiTaskDataModule
from datamodules.settings import DatasetConfig
from lightning_app.config import Config, load_config
from lightning_app.train import build_module, make_ready
from models.multitask import MultiTaskModule

STEPS = 10  # per turn
TURNS = 5


@dataclass(frozen=True)
class Setting:
    """One way to train."""

    name: str
    bf16: bool = True
    compile: bool = False
    grad_checkpointing: bool = False
    channels_last: bool = True


SETTINGS = (
    Setting("fp32 (tf32 matmul)", bf16=False),
    Setting("bf16"),
    Setting("bf16, contiguous", channels_last=False),
    Setting("bf16, compiled encoder", compile=True),
    Setting("bf16, gradient checkpointing", grad_checkpointing=True),
)


def main() -> None:
    """Measure and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", default="convnext_tiny")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    config = demo_config(options)
    stream = MultiTaskDataModule(config.data)
    began = time.perf_counter()
    make_ready(list(stream.datasets.values()), config)
    result: dict[str, Any] = {
        "machine": machine(),
        "encoder": options.encoder,
        "images_per_step": options.batch_size * len(config.data.train),
        "seconds_to_forge_and_prepare": time.perf_counter() - began,
    }
    for name, measure in (("step", steps), ("memory", memory), ("loader", loaders)):
        result[name] = measure(config, stream)
        print(json.dumps({name: result[name]}, indent=1), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def demo_config(options: argparse.Namespace) -> Config:
    """The demo's datasets at the real recipe's size."""
    root = options.root
    config = load_config(
        Path("configs/demo.yaml"),
        [
            f"data.root={root}/published",
            f"data.stores={root}/stores",
            "data.image_size=224",
            f"data.batch_size={options.batch_size}",
            f"model.encoder={options.encoder}",
            "model.weights=random",
            "model.freeze_norm=false",
        ],
    )
    for entry in config.data.train.values():
        entry.patch_size = 256
    return config


def steps(config: Config, stream: MultiTaskDataModule) -> dict[str, Any]:
    """Images/s and peak memory of a training step on a batch that is already there."""
    batch = next(iter(stream.train_dataloader())).to("cuda")
    seconds: dict[str, list[float]] = {setting.name: [] for setting in SETTINGS}
    trained = {setting.name: Training(config, stream, setting) for setting in SETTINGS}
    for name in trained:  # compilation and algorithm search
        trained[name].steps(batch, 5)
    for _ in range(TURNS):
        for name, training in trained.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            training.steps(batch, STEPS)
            torch.cuda.synchronize()
            seconds[name].append((time.perf_counter() - start) / STEPS)
    count = len(batch.images)
    return {
        name: {"images_per_second": round(count / statistics.median(taken), 1)}
        for name, taken in seconds.items()
    }


def memory(config: Config, stream: MultiTaskDataModule) -> dict[str, Any]:
    """Peak memory in GiB by setting, and by the number of datasets at two per micro-batch."""
    batch = next(iter(stream.train_dataloader())).to("cuda")
    found: dict[str, Any] = {"by_setting": {}, "by_number_of_datasets_at_k_2": {}}
    for setting in SETTINGS:
        found["by_setting"][setting.name] = peak(Training(config, stream, setting), batch)
    names = list(config.data.train)
    for number in (2, 5, 10, 20):
        data = replace(config.data, tasks_per_batch=2, train={})
        for i in range(number):
            name = names[i % len(names)]
            data.train[f"{name}_{i}"] = DatasetConfig(reader=name, folder=name, patch_size=256)
        many = MultiTaskDataModule(data)
        wide = replace(config, data=data)
        make_ready(list(many.datasets.values()), wide)
        two = next(iter(many.train_dataloader())).to("cuda")
        used = peak(Training(wide, many, Setting("bf16")), two)
        found["by_number_of_datasets_at_k_2"][number] = used
    return found


def peak(training: Training, batch: MultiTaskBatch) -> float:
    """GiB at the worst moment of a few steps, this training alone."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    training.steps(batch, 3)
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def loaders(config: Config, stream: MultiTaskDataModule) -> dict[str, Any]:
    """Images/s of the loader alone, by number of workers."""
    found = {}
    for workers in (1, 2, 4, 8, 14):
        data = replace(config.data, workers=workers)
        again = MultiTaskDataModule(data, steps_per_epoch=60)
        batches: Iterator[MultiTaskBatch] = iter(again.train_dataloader())
        for _ in range(5):
            next(batches)
        start, images = time.perf_counter(), 0
        for batch in batches:
            images += len(batch.images)
        found[workers] = round(images / (time.perf_counter() - start), 1)
    return found


class Training:
    """A module with an optimiser, stepped by hand."""

    def __init__(self, config: Config, stream: MultiTaskDataModule, setting: Setting) -> None:
        model = replace(
            config.model,
            compile=setting.compile,
            grad_checkpointing=setting.grad_checkpointing,
            channels_last=setting.channels_last,
        )
        self.module: MultiTaskModule = build_module(replace(config, model=model), stream).cuda()
        self.optimizer = torch.optim.AdamW(self.module.model.parameters(), lr=1e-4, fused=True)
        self.bf16 = setting.bf16
        self.module.train()

    def steps(self, batch: MultiTaskBatch, count: int) -> None:
        """Forward, backward and update, `count` times."""
        for step in range(count):
            images = self.module.prepare_images(batch.images, step)
            ready = MultiTaskBatch(images, batch.parts, step)
            context = torch.autocast("cuda", torch.bfloat16) if self.bf16 else nullcontext()
            with context:
                loss = self.module.micro_batch_loss(ready)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "gpu": torch.cuda.get_device_name(),
        "gpu_memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30),
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
