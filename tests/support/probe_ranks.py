"""A small training that probes on the way: for one process, and for two ranks as a script.

Run as a script by test_epoch_probes.py: `python probe_ranks.py FOLDER`.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback

from lightning_app.config import Config
from lightning_app.pretrain import assemble
from tests.support.train_ranks import small_run

TIMEOUT = timedelta(seconds=5)
PROBE_S = 7.0  # longer than the time-out


def probed_run(folder: Path, *overrides: str) -> Config:
    """Two datasets, three epochs with averaged weights, and one unseen dataset."""
    config = small_run(
        folder,
        "trainer.epochs=3",
        "trainer.steps_per_epoch=2",
        "optim.ema_decay=0.9",
        "probe.baselines=[random]",
        "probe.sizes=[6,0]",
        "probe.repeats=2",
        "probe.trees=5",
        "probe.bootstrap=50",
        "probe.jobs=1",
        "probe.map_points=0",
        *overrides,
    )
    seen = config.data.train
    config.data.train = {name: seen[name] for name in ("nct_crc", "glas")}
    config.data.unseen = {"breastpathq": seen["breastpathq"]}
    return config


class ShortTimeout(Callback):
    """Lets every collective operation of the training fail that a rank waits for too long.

    Only from here on: ranks may start at different times.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shorten the time-out of the group that Lightning made."""
        dist.barrier()
        dist.distributed_c10d._set_pg_timeout(TIMEOUT, dist.group.WORLD)


class Ending(Callback):
    """Writes down what a rank ended with."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the weights beside the run's other files."""
        state = {key: value.clone() for key, value in pl_module.model.state_dict().items()}
        out = Path(os.environ["WITNESS"])
        torch.save(state, out / f"rank{trainer.global_rank}.pt")


def main() -> None:
    """Train on two ranks with probes that last longer than the time-out."""
    torch.set_num_threads(1)
    config = probed_run(
        Path(sys.argv[1]),
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "probe.repeats=1000",  # so many that only the budget ends a probe
        "probe.every=2",
        f"probe.every_budget={PROBE_S}",
        f"probe.budget={PROBE_S}",
    )
    run = assemble(config)
    run.trainer.callbacks += [ShortTimeout(), Ending()]
    run.trainer.fit(run.module, datamodule=run.stream)


if __name__ == "__main__":
    main()
