"""Trains a small run on one or several CPU ranks and writes down what each rank ended with.

Run as a script by test_ddp.py:
`python train_ranks.py FOLDER RANKS TASKS_PER_BATCH BATCH ROUNDS STRATEGY`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.distributed.tensor import DTensor

from datamodules.stream.batch import MultiTaskBatch
from lightning_app.config import Config, load_config
from lightning_app.pretrain import assemble

STEPS = 20


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
            "data.augmentation.stain=0",
            "model.encoder=convnext_atto",
            "model.weights=random",
            "model.neck_channels=16",
            "model.freeze_norm=false",
            "optim.ema_decay=0",
            "trainer.epochs=1",
            f"trainer.steps_per_epoch={STEPS}",
            "trainer.log_every=1",
            "trainer.gradients_every=10",
            "trainer.accelerator=cpu",
            "wandb.mode=disabled",
            *overrides,
        ],
    )
    kept = ("nct_crc", "glas", "monuseg", "breastpathq")
    known = {**config.data.train, **config.data.unseen}
    config.data.train = {name: known[name] for name in kept}
    config.data.unseen = {}
    for entry in config.data.train.values():
        entry.patch_size = 64
    return config


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


def main() -> None:
    """Train."""
    folder, ranks, tasks_per_batch, batch, rounds, strategy = sys.argv[1:]
    torch.set_num_threads(1)
    config = small_run(
        Path(folder),
        f"trainer.devices={ranks}",
        f"trainer.strategy={strategy}",
        f"data.tasks_per_batch={tasks_per_batch}",
        f"data.batch_size={batch}",
        f"trainer.rounds_per_step={rounds}",
    )
    run = assemble(config)
    out = Path(os.environ["WITNESS"])
    out.mkdir(parents=True, exist_ok=True)
    run.trainer.callbacks.append(Witness(out))
    run.trainer.fit(run.module, datamodule=run.stream)


if __name__ == "__main__":
    main()
