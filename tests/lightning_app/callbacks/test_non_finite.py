"""Non-finite numbers never reach the weights, and failures are explained in one line."""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from datamodules.core.errors import StoreError, TrainingError
from lightning_app.callbacks.finish import ProbeAtEnd
from lightning_app.callbacks.sample_predictions import ShowPanels
from lightning_app.pretrain import Run, assemble
from lightning_app.training.error_messages import explain
from tests.support.train_ranks import leave_out, small_run

TASK = "nct_crc/tissue"


class Spoil(Callback):
    """Makes a task non-finite at one optimizer step, and records the weights before it."""

    def __init__(self, where: str, step: int = 1) -> None:
        self.where = where
        self.step = step
        self.files: set[str] = set()
        self.before: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        head = pl_module.model.heads[TASK].linear
        parts = [part for part in batch.parts if part.dataset == "nct_crc"]
        if trainer.global_step == self.step:
            self.before = [p.detach().clone() for p in pl_module.parameters()]
            store = trainer.datamodule.datasets["nct_crc"].store
            for part in parts:
                self.files = {store.source(int(image)) for image in part.index}
                if self.where == "loss":
                    batch.images[part.start] = math.nan
        if self.where == "gradient":
            spoil = trainer.global_step == self.step
            head.weight.register_hook(lambda g: g * math.inf if spoil else g)


def spoiled(place: Path, where: str, *settings: str) -> tuple[Run, Spoil]:
    config = small_run(place, "trainer.steps_per_epoch=3", "probe.baselines=[]", *settings)
    run = leave_out(assemble(config), ShowPanels, ProbeAtEnd)
    spoil = Spoil(where)
    run.trainer.callbacks.insert(0, spoil)
    return run, spoil


def unchanged(run: Run, spoil: Spoil) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(spoil.before, run.module.parameters(), strict=True)
    )


@pytest.fixture(scope="module")
def place(small_folder: Callable[[str], Path]) -> Path:
    return small_folder("non_finite")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_non_finite_number_stops_the_run_and_names_step_task_and_files(
    place: Path, where: str
) -> None:
    run, spoil = spoiled(place, where)
    with pytest.raises(TrainingError) as caught:
        run.trainer.fit(run.module, datamodule=run.stream)
    line = str(caught.value)
    fault = f"the loss of {TASK} is nan" if where == "loss" else f"the gradient of {TASK} is not"
    assert line.startswith(f"step 1: {fault}"), line
    assert all(file in line for file in spoil.files)
    assert "trainer.non_finite=skip" in line and "\n" not in line
    assert unchanged(run, spoil)


@pytest.mark.slow
def test_a_non_finite_step_can_be_skipped_and_is_counted(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, spoil = spoiled(place, "loss", "trainer.non_finite=skip", "data.tasks_per_batch=1")
    run.trainer.fit(run.module, datamodule=run.stream)
    assert any("step 1: the loss of" in line and "1 so far" in line for line in caplog.messages)
    assert run.trainer.global_step == 3
    assert all(p.isfinite().all() for p in run.module.parameters())
    assert not unchanged(run, spoil)
    log = pd.read_csv(run.folder / "metrics.csv")
    assert log["train/skipped_steps"].dropna().unique().tolist() == [1.0]
    assert log["train/loss"].notna().sum() == 3


def test_an_out_of_memory_message_names_the_settings_to_lower() -> None:
    device = explain(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert "model.grad_checkpointing=true" in str(device)
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert "on the host; lower data.workers" in str(explain(refused.value))
    assert explain(ValueError("something else")) is None


class Dies(torch.utils.data.Dataset):
    """A loader process that is killed by the system or reads bad data."""

    def __init__(self, killed: bool) -> None:
        self.killed = killed

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        if self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise StoreError("glas.h5: patch 3 is cut short; delete the file")


@pytest.mark.parametrize(
    ("killed", "expected"),
    [(True, "a loader process was killed.*data.workers"), (False, "^glas.h5: patch 3 is cut")],
)
def test_a_dead_loader_process_gives_one_line(killed: bool, expected: str) -> None:
    with pytest.raises(Exception) as caught:
        next(iter(DataLoader(Dies(killed), num_workers=1)))
    explanation = explain(caught.value)
    assert explanation is not None and "\n" not in str(explanation)
    assert re.search(expected, str(explanation))
