"""Trains small runs on one or several CPU ranks and writes what each rank ended with.

Run as a script by test_ddp.py: `python train_ranks.py FOLDER RUNS`. RUNS is JSON: by the name of a
run the number of its ranks and its settings, "key=value". Imports take longer than the runs, so
every rank is a fork of the script, started with the environment that torchrun gives its processes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.distributed.tensor import DTensor

from datamodules.stream.batch import MultiTaskBatch
from lightning_app.callbacks.finish import ProbeAtEnd
from lightning_app.callbacks.sample_predictions import ShowPanels
from lightning_app.config import Config, load_config
from lightning_app.pretrain import Run, assemble


def small_run(folder: Path, *overrides: str) -> Config:
    """Three forged datasets with all kinds of dense and global tasks, an encoder without
    batch statistics, and nothing random on the device."""
    config = load_config(
        Path(__file__).resolve().parents[2] / "configs" / "demo.yaml",
        [
            f"data.root={folder}/published",
            f"data.stores={folder}/stores",
            f"out={folder}/runs",
            "data.forge=24",
            "data.image_size=64",
            "data.workers=0",
            "data.val_limit=7",
            "data.augmentation={color: 0, blur: 0, stain: 0}",
            "model.encoder=test_convnext",
            "model.weights=random",
            "model.neck_channels=16",
            "model.freeze_norm=false",
            "optim.ema_decay=0",
            "trainer.epochs=1",
            "trainer.steps_per_epoch=12",
            "trainer.log_every=1",
            "trainer.gradients_every=0",
            "trainer.accelerator=cpu",
            "wandb.mode=disabled",
            *overrides,
        ],
    )
    kept = ("nct_crc", "glas", "monuseg", "breastpathq")
    known = {**config.data.train, **config.data.unseen}
    config.data.train = {name: known[name] for name in kept}
    config.data.unseen = {}
    for name, entry in config.data.train.items():
        entry.patch_size = 128 if name in ("glas", "monuseg") else 64  # fewer tiles to score
    return config


def leave_out(run: Run, *kinds: type[Callback]) -> Run:
    """The run without callbacks of some kinds, such as those that only draw."""
    callbacks = run.trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [callback for callback in callbacks if not isinstance(callback, kinds)]
    return run


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights as they are without sharding."""
    state = model.state_dict()
    return {k: (v.full_tensor() if isinstance(v, DTensor) else v).clone() for k, v in state.items()}


class Witness(Callback):
    """Notes which samples a rank trained on, and what it ended with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start: dict[str, torch.Tensor] = {}
        self.seen: list[tuple[int, str, list[int]]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let Adam's steps fade with the gradient.

        A bias before a norm has no gradient but rounding, and Adam would make whole steps of it.
        """
        for group in trainer.optimizers[0].param_groups:
            group["eps"] = 1e-3
        self.start = whole(pl_module.model)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: MultiTaskBatch,
        batch_idx: int,
    ) -> None:
        """Note the samples."""
        for part in batch.parts:
            self.seen.append((batch.step, part.dataset, part.index.tolist()))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write parameters before and after, samples and scores."""
        scores = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        state = whole(pl_module.model)
        found = {"start": self.start, "state": state, "seen": self.seen, "scores": scores}
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            found["gradients"] = compared(folder / "metrics.csv")
            found["final"] = json.loads((folder / "final_scores.json").read_text())["scores"]
        torch.save(found, self.folder / f"rank{trainer.global_rank}.pt")


def compared(log: Path) -> dict[str, list[float]]:
    """What was logged about the tasks' gradients."""
    table = pd.read_csv(log).filter(like="gradients/").dropna()
    return {str(name): column.tolist() for name, column in table.items()}


def torchrun_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Variables by which torchrun tells a process its place among the others."""
    return {
        "TORCHELASTIC_RUN_ID": str(port),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GROUP_RANK": "0",
        **dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)),
        **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(ranks)),
    }


def free_port() -> int:
    """A port that is free together with the one 10,000 above, where ranks leave their notes."""
    for port in range(20_000 + os.getpid() % 10_000, 40_000):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
    raise RuntimeError("no two free ports 10,000 apart")


def train_rank(folder: Path, name: str, settings: list[str]) -> int:
    """Train as one rank in a process of its own; return the process."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        run = leave_out(assemble(small_run(folder, *settings)), ShowPanels, ProbeAtEnd)
        run.trainer.callbacks.append(Witness(folder / name))
        run.trainer.fit(run.module, datamodule=run.stream)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Train one run after the other."""
    folder, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    for name, (ranks, settings) in runs.items():
        (folder / name).mkdir()
        port = free_port()
        processes = []
        for rank in range(ranks):
            if ranks > 1:
                os.environ |= torchrun_environment(rank, ranks, port)
            processes.append(train_rank(folder, name, settings))
        for variable in torchrun_environment(0, ranks, port):
            os.environ.pop(variable, None)
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        if any(codes):
            sys.exit(f"{name}: ranks ended with {codes}")


if __name__ == "__main__":
    main()
