"""What a GPU does with the steps of a training: speed, waiting, FLOPs, synchronisations, memory."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.patches import tissue, view
from benchmarks.training import Loop, specs
from datamodules.stream.loading import StreamLoader, make_loader
from datamodules.stream.sampling import Stream, TrainSampler
from datamodules.stream.transforms import Transform
from models.config import ModelConfig, OptimConfig
from models.training.optimizer import parameter_groups


@dataclass(frozen=True)
class Sizes:
    """What is measured; the defaults are for one H100 or H200 with 16 cores."""

    encoders: tuple[str, ...] = ("convnext_tiny", "tf_efficientnet_lite0")
    datasets: int = 10
    images: int = 16  # per dataset and micro-batch
    side: int = 224
    steps: int = 20
    patches: int = 640
    workers: int = 12
    device: str = "cuda"
    limit_s: int = 75  # of one part
    total_s: int = 520  # of all: later parts get what is left


TINY = Sizes(("test_convnext",), 3, 2, 64, 2, 32, 0, "cpu", 240)


class Bench:
    """One encoder on one device."""

    def __init__(self, sizes: Sizes, encoder: str, k: int = 0, **model: Any) -> None:
        self.sizes, self.device = sizes, torch.device(sizes.device)
        torch.set_float32_matmul_precision("high")
        settings = ModelConfig(encoder, "random", **model)
        k = k or sizes.datasets
        self.loop = Loop(settings, sizes.datasets, k, sizes.images, sizes.side)
        self.module = self.loop.module.to(self.device).train()
        self.resident = [batch.to(self.device) for batch in self.loop.batches]

    def optimizer(self, fused: bool) -> torch.optim.Optimizer:
        """AdamW over the groups of a training."""
        fused = fused and self.device.type == "cuda"
        return torch.optim.AdamW(parameter_groups(self.module.model, OptimConfig()), fused=fused)

    def step(self, optimizer: torch.optim.Optimizer, batches: list[Any]) -> None:
        """One optimizer step over the micro-batches of a round."""
        for batch in batches:
            prepared = self.module.on_after_batch_transfer(batch, 0)
            with torch.autocast(self.device.type, torch.bfloat16):
                loss = self.module.micro_batch_loss(prepared)
            (loss / len(batches)).backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        self.module.step_losses, self.module._unlogged = [], []

    def per_second(self, work: Callable[[], None], images: int) -> float:
        """Images per second of `work`, which is repeated; the first three times do not count."""
        for _ in range(min(3, self.sizes.steps)):
            work()
        self.wait()
        started = time.perf_counter()
        for _ in range(self.sizes.steps):
            work()
        self.wait()
        return round(images * self.sizes.steps / (time.perf_counter() - started), 1)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def resident_rate(self, fused: bool = True) -> dict[str, float]:
        """Images per second of a step on a resident round, and its peak memory."""
        optimizer = self.optimizer(fused)
        images = sum(len(batch.images) for batch in self.resident)
        rate = self.per_second(lambda: self.step(optimizer, self.resident), images)
        on_gpu = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
        return {"images_per_second": rate, "peak_gib": round(peak, 2)}


def loader_of(sizes: Sizes, folder: Path, steps: int, first: int = 0) -> StreamLoader:
    """Micro-batches of all datasets out of stores, from number `first` to `steps`."""
    images = tissue(folder, sizes.patches)
    views = []
    for spec in specs(sizes.datasets):
        source = view(folder, spec.dataset, (spec.task,), images)
        transform = Transform(sizes.side, source.store.tasks, source.transform.augmentation)
        views.append(replace(source, transform=transform))
    stream = Stream((sizes.patches,) * len(views), (sizes.images,) * len(views), len(views), 0)
    sampler = TrainSampler(stream, steps, lambda: first)
    return make_loader(views, sampler, sizes.side, sizes.workers)


def loading(sizes: Sizes, encoder: str) -> dict[str, Any]:
    """Images per second with real loading against the same step on a resident batch."""
    bench = Bench(sizes, encoder)
    resident = bench.resident_rate()["images_per_second"]
    optimizer, waited, started = bench.optimizer(True), 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        batches = iter(loader_of(sizes, Path(folder), sizes.steps + 3))
        for number in range(sizes.steps + 3):
            if number == 3:
                bench.wait()
                waited, started = 0.0, time.perf_counter()
            asked = time.perf_counter()
            batch = next(batches).to(bench.device, non_blocking=True)
            waited += time.perf_counter() - asked
            bench.step(optimizer, [batch])
        bench.wait()
        spent = time.perf_counter() - started
    rate = sizes.steps * sizes.images * sizes.datasets / spent
    return {
        "resident_images_per_second": resident,
        "loaded_images_per_second": round(rate, 1),
        "loaded_of_resident": round(rate / resident, 3),
        "waiting": round(waited / spent, 4),
        "goal": 0.95,
    }


def use(sizes: Sizes, encoder: str) -> dict[str, Any]:
    """The whole step against the bare encoder's forward and backward, and its FLOPs."""
    bench = Bench(sizes, encoder)
    model = bench.module.model.encoder.model
    x = bench.module.on_after_batch_transfer(bench.resident[0], 0).images

    def bare() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            model(x).sum().backward()

    with FlopCounterMode(display=False) as counter:
        bare()
    rate = bench.per_second(bare, len(x))
    whole = bench.resident_rate()["images_per_second"]
    flops = counter.get_total_flops() / len(x)
    return {
        "encoder_images_per_second": rate,
        "step_images_per_second": whole,
        "step_of_encoder": round(whole / rate, 3),
        "encoder_gflops_per_image": round(flops / 1e9, 2),
        "encoder_tflops_in_step": round(whole * flops / 1e12, 2),
    }


def synchronisations(sizes: Sizes, encoder: str) -> dict[str, Any]:
    """Places of a step where the host waits for the device; there should be none.

    On a CPU the host never waits, and nothing is counted.
    """
    bench = Bench(sizes, encoder)
    optimizer = bench.optimizer(True)
    bench.step(optimizer, bench.resident)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if bench.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        bench.step(optimizer, bench.resident)
        if bench.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchron" in str(w.message)]
    on_gpu = bench.device.type == "cuda"
    return {"count": len(places) if on_gpu else None, "places": sorted(set(places))}


def variants(sizes: Sizes, encoder: str) -> dict[str, Any]:
    """Speed and memory by datasets in a micro-batch, and with single settings changed."""
    found: dict[str, Any] = {}
    settings: dict[str, tuple[int, dict[str, Any], bool]] = {
        "K = 1": (1, {}, True),
        "K = 2": (2, {}, True),
        "K = all": (0, {}, True),
        "optimizer not fused": (0, {}, False),
        "gradient checkpointing": (0, {"grad_checkpointing": True}, True),
        "not channels-last": (0, {"channels_last": False}, True),
    }
    for name, (k, model, fused) in settings.items():
        if sizes.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        found[name] = Bench(sizes, encoder, k, **model).resident_rate(fused)
    return found


def compiled(sizes: Sizes, encoder: str) -> dict[str, Any]:
    """Speed with torch.compile."""
    return Bench(sizes, encoder, compile=sizes.device == "cuda").resident_rate()
