"""Several processes start together, agree, and exit together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from datamodules.core.errors import ConfigError
from lightning_app.config import TrainerConfig, save_config
from lightning_app.run.processes import decide_once, devices_and_nodes, is_first_process
from tests.support.train_ranks import small_run

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PRETRAIN = ["-m", "lightning_app", "pretrain", "--config"]
GONE_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def recipe(small_folder: Callable[[str], Path]) -> Path:
    """A small run with prepared data."""
    folder = small_folder("started")
    config = small_run(
        folder, "probe.baselines=[]", "data.batch_size=2", "data.image_size=32", "data.val_limit=4"
    )
    path = folder / "recipe.yaml"
    save_config(config, path)
    return path


def start(command: list[str], recipe: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(
        [*command, str(recipe), f"out={out}", *more],
        env=environment,
        text=True,
        stdout=(out.parent / f"{out.name}.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def children(process: int) -> list[int]:
    """Live children of a process, the trainers among them only."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == process and state != "Z" and b"pretrain" in line:
            found.append(int(folder.name))
    return sorted(found)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for_steps(out: Path, process: subprocess.Popen[str], steps: int = 3) -> None:
    deadline = time.monotonic() + 240
    while True:
        logs = list(out.glob("*/metrics.csv"))
        if logs and len(logs[0].read_text().splitlines()) > 2 * steps:
            return
        output = (out.parent / f"{out.name}.log").read_text()
        assert process.poll() is None and time.monotonic() < deadline, output[-3000:]
        time.sleep(0.1)


@pytest.mark.slow
def test_torchrun_trains_one_run_in_one_folder(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    settings = ["trainer.steps_per_epoch=3", "trainer.checkpoint_every=2"]
    process = start([*TORCHRUN, *PRETRAIN], recipe, out, *settings, "resume=auto")
    code = process.wait(300)
    output = (tmp_path / "runs.log").read_text()
    assert code == 0, output[-3000:]
    (run,) = out.iterdir()
    assert (run / "report.html").is_file()
    assert pd.read_csv(run / "metrics.csv")["train/loss"].notna().sum() == 3
    assert output.count("epoch 1/1") == 1
    newest = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert newest["global_step"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["a child of the launcher", "the launcher", "under torchrun"])
def test_a_killed_rank_ends_the_others_soon(recipe: Path, tmp_path: Path, victim: str) -> None:
    out = tmp_path / "runs"
    external = victim == "under torchrun"
    command = [*TORCHRUN, *PRETRAIN] if external else [sys.executable, *PRETRAIN]
    settings = ["trainer.steps_per_epoch=100000", *([] if external else ["trainer.devices=2"])]
    process = start(command, recipe, out, *settings)
    try:
        wait_for_steps(out, process)
        others = children(process.pid)
        assert len(others) == (2 if external else 1)
        killed = process.pid if victim == "the launcher" else others[-1]
        os.kill(killed, signal.SIGKILL)
        since = time.monotonic()
        while any(alive(one) for one in [process.pid, *others]):
            process.poll()
            assert time.monotonic() - since < GONE_WITHIN_S
            time.sleep(0.2)
        assert process.wait() != 0
    finally:
        if any(alive(one) for one in [process.pid]):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_ranks_at_one_step_with_one_checkpoint(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    process = start(
        [sys.executable, *PRETRAIN],
        recipe,
        out,
        "trainer.devices=2",
        "trainer.steps_per_epoch=100000",
    )
    wait_for_steps(out, process)
    (other,) = children(process.pid)
    os.kill(other, signal.SIGUSR1)
    assert process.wait(60) == 128 + signal.SIGUSR1
    output = (tmp_path / "runs.log").read_text()
    (run,) = out.iterdir()
    steps = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert output.count(f"stopped after step {steps}; go on with: pretrain resume={run}") == 1
    assert "Traceback" not in output
    assert pd.read_csv(run / "metrics.csv")["train/loss"].notna().sum() == steps


def test_torchrun_or_slurm_determines_the_number_of_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "pretrain")
    assert devices_and_nodes(TrainerConfig()) == (4, 2)
    assert devices_and_nodes(TrainerConfig(devices="4", nodes=2)) == (4, 2)
    with pytest.raises(ConfigError, match=r"trainer\.devices=3.*2 x 4 processes were started"):
        devices_and_nodes(TrainerConfig(devices="3"))


NODE = """
import sys
from lightning_app.run.processes import decide_once, is_first_process
print(is_first_process(), decide_once("question", lambda: sys.argv[1]), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("low", [1024, 56_000])  # of 65,535 ports, one 10,000 further is free
def test_the_first_process_of_the_first_node_decides_for_all_nodes(low: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] % 9000 + low
    nodes = []
    for node in (1, 0):
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
            "NODE_RANK": str(node),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        command = [sys.executable, "-c", NODE, f"node {node}"]
        pipe = subprocess.PIPE
        nodes.append(subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe))
    said = [process.stdout.readline() for process in nodes if process.stdout]
    for process in nodes:
        process.communicate("")
    assert said == ["False node 0\n", "True node 0\n"]


def test_a_further_node_that_cannot_ask_the_first_one_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_first_process()
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        decide_once("never asked before", lambda: "")


@pytest.mark.parametrize(
    ("name", "value"), [("MASTER_PORT", "70000"), ("MASTER_PORT", "x"), ("NODE_RANK", "-1")]
)
def test_a_wrong_port_or_node_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    settings = {"NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", name: value}
    for key, text in settings.items():
        monkeypatch.setenv(key, text)
    with pytest.raises(ConfigError, match=rf"{name}={value}: must be a whole number from"):
        decide_once("never asked before", lambda: "")


@pytest.mark.parametrize("devices", ["-5", "abc", "", "\u00b2", "1;2", "9" * 5000, "0x1"])
def test_devices_are_auto_a_number_or_indices(devices: str) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.devices=") as caught:
        devices_and_nodes(TrainerConfig(devices=devices))
    assert len(str(caught.value)) < 200
    assert devices_and_nodes(TrainerConfig(devices="2")) == (2, 1)
    assert devices_and_nodes(TrainerConfig(devices="0,2")) == ("0,2", 1)
