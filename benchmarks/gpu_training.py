"""Trainings on a GPU: taken up from a checkpoint, and two processes that share one device."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu_parts import Bench, Sizes, loader_of
from datamodules.stream.batch import MultiTaskBatch

STEPS, SAVED = 4, 2  # of a training, and before its checkpoint


def resume(sizes: Sizes, encoder: str) -> dict[str, Any]:
    """Compare weights of a training, of its repetition, and of one taken up from its checkpoint.

    Where operations on the device are not deterministic, the repetition differs as well: by how
    much is the tolerance of the resumed one.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        whole = trained(sizes, encoder, folder / "whole")
        (saved,) = (folder / "whole").glob("*.ckpt")
        again = trained(sizes, encoder, folder / "again")
        resumed = trained(sizes, encoder, folder / "resumed", saved)
    tolerance, found = difference(whole, again), difference(whole, resumed)
    return {
        "largest_difference_repeated": tolerance,
        "largest_difference_resumed": found,
        "bit_for_bit": found == 0.0,
        "within_tolerance": found <= tolerance,
    }


def trained(
    sizes: Sizes, encoder: str, folder: Path, checkpoint: Path | None = None
) -> dict[str, Tensor]:
    """Train with Lightning out of stores; a checkpoint is written in the middle of the epoch."""
    folder.mkdir()
    bench = Bench(sizes, encoder)
    loader = loader_of(sizes, folder, STEPS, SAVED if checkpoint else 0)
    keep = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=SAVED, save_top_k=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=1, precision="bf16-mixed", devices=1, logger=False, callbacks=[keep],
            accelerator="gpu" if bench.device.type == "cuda" else "cpu", gradient_clip_val=1.0,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(bench.module, loader, ckpt_path=checkpoint, weights_only=True)
    if trainer.global_step != STEPS:
        raise RuntimeError(f"{trainer.global_step} steps instead of {STEPS}")
    for left in folder.glob(f"*step={STEPS}.ckpt"):
        left.unlink()
    return {name: value.cpu() for name, value in bench.module.state_dict().items()}


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference between two sets of weights."""
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


class Loss(nn.Module):
    """The loss of a micro-batch, as a module that can be distributed."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.module, self.device = bench.module, bench.device

    def forward(self, batch: MultiTaskBatch) -> Tensor:
        """Prepare the images and return the loss."""
        prepared = self.module.on_after_batch_transfer(batch, 0)
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.module.micro_batch_loss(prepared)


def two_processes(sizes: Sizes, encoder: str) -> dict[str, Any]:
    """Train with two processes on one device by gloo, each on images of its own."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (sizes, encoder, folder)
        # Forked before this process has used the device, which spares two starts of Python.
        torch.multiprocessing.start_processes(one_of_two, arguments, 2, start_method="fork")
        result: dict[str, Any] = torch.load(f"{folder}/result", weights_only=True)
    return result


def one_of_two(rank: int, sizes: Sizes, encoder: str, folder: str) -> None:
    """Train as one of two ranks; the first writes the result."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    bench = Bench(sizes, encoder)
    (batch,) = bench.resident
    if rank:
        batch.images = batch.images.flip(1).contiguous()
    loss, optimizer = DistributedDataParallel(Loss(bench)), bench.optimizer(True)
    for number in range(sizes.steps + 1):
        if number == 1:
            bench.wait()
            dist.barrier()
            started = time.perf_counter()
        loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        bench.module.step_losses, bench.module._unlogged = [], []
    bench.wait()
    dist.barrier()
    spent = time.perf_counter() - started
    weights = torch.cat([one.detach().flatten() for one in bench.module.parameters()])
    least, most = weights.clone(), weights.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    result = {
        "images_per_second": round(2 * len(batch.images) * sizes.steps / spent, 1),
        "largest_difference_between_ranks": float((most - least).max()),
    }
    if rank == 0:
        torch.save(result, f"{folder}/result")
    dist.destroy_process_group()
