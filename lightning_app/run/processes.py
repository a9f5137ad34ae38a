"""The processes of one run: their launcher, their number, and the decisions of the first one."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from datamodules.core.errors import ConfigError
from lightning_app.config import TrainerConfig

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others in one collective call. Nothing that one rank does alone
takes that long: data are prepared before the first call, probes follow the last one."""


def launcher() -> ClusterEnvironment | None:
    """Return the environment of torchrun or SLURM; None if neither started this process."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if SLURMEnvironment.detect():
        return SLURMEnvironment(auto_requeue=False)
    return None


def is_first_process() -> bool:
    """Return whether this is rank 0, under any launcher; only rank 0 prints and logs."""
    names = ("LOCAL_RANK", "RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def decide_once(name: str, decide: Callable[[], str]) -> str:
    """Return on all ranks what `decide` returns in the run's first process.

    Each decision needs a name of its own, the same on all ranks.
    """
    environment = launcher()
    key = f"HISTOLOGY_{name.upper()}"
    if environment is None:
        # Lightning starts the others of a node later, with a copy of this process's environment;
        # the first processes of further nodes ask over the network.
        if is_first_process():
            os.environ[key] = decide()
        if {"NODE_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys() and not _is_child():
            node, port = _number("NODE_RANK", 0, 10_000), _number("MASTER_PORT", 1, 65_535)
            store = _store(os.environ["MASTER_ADDR"], port, node)
            if node == 0:
                store.set(key, os.environ[key])
            os.environ[key] = str(store.get(key).decode())
        if key not in os.environ:
            raise ConfigError("NODE_RANK: set MASTER_ADDR and MASTER_PORT of the first node, too")
        return os.environ[key]
    if environment.world_size() == 1:
        return decide()
    rank = environment.global_rank()
    store = _store(environment.main_address, environment.main_port, rank)
    key = f"{key}_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if rank == 0:
        store.set(key, decide())
    return str(store.get(key).decode())


def _number(name: str, low: int, high: int) -> int:
    """Return the number in an environment variable.

    Raises:
        ConfigError: it holds something else.
    """
    text = os.environ[name]
    if not re.fullmatch("[0-9]{1,5}", text) or not low <= int(text) <= high:
        raise ConfigError(f"{name}={text[:40]}: must be a whole number from {low} to {high}")
    return int(text)


def port_beside(port: int) -> int:
    """Return the port of the decisions, beside that of the training.

    >>> port_beside(29_500), port_beside(60_000)
    (39500, 50000)
    """
    return port + 10_000 if port + 10_000 <= 65_535 else port - 10_000


@cache
def _store(address: str, port: int, rank: int) -> Any:
    """Return a key-value store for ranks that Lightning has not connected yet.

    Under torchrun it is the agent's. Elsewhere rank 0 serves it until it exits, on a port beside
    that of the training.
    """
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return dist.TCPStore(  # type: ignore[attr-defined]
        address,
        port if agent else port_beside(port),
        is_master=rank == 0 and not agent,
        timeout=TIMEOUT,
        wait_for_workers=False,
    )


def devices_and_nodes(settings: TrainerConfig) -> tuple[int | str, int]:
    """Return processes per node and nodes: as torchrun or SLURM started them, else as configured.

    Raises:
        ConfigError: the configuration contradicts the launcher.
    """
    wanted = settings.devices
    if not re.fullmatch(r"auto|-1|[0-9]{1,4}(,[0-9]{1,4})*,?", wanted):
        raise ConfigError(
            f"trainer.devices={wanted[:40]}: give auto, a number of devices or their indices, "
            "as in 0,2"
        )
    environment = launcher()
    if environment is None:
        if wanted == "auto" and not torch.cuda.is_available():
            return 1, settings.nodes
        return int(wanted) if wanted.isdigit() else wanted, settings.nodes
    world = environment.world_size()
    local = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or world
    per_node = int(local)
    nodes = world // per_node
    if wanted not in ("auto", "-1", str(per_node)) or settings.nodes not in (1, nodes):
        raise ConfigError(
            f"trainer.devices={wanted} and trainer.nodes={settings.nodes}: but {nodes} x "
            f"{per_node} processes were started; leave both out under torchrun and SLURM"
        )
    return per_node, nodes


def world_size(settings: TrainerConfig) -> int:
    """Return the number of ranks that the run will have."""
    devices, nodes = devices_and_nodes(settings)
    if isinstance(devices, int):
        return devices * nodes
    if devices not in ("auto", "-1"):
        return nodes * sum(bool(part.strip()) for part in devices.split(","))
    return nodes * (torch.cuda.device_count() if settings.accelerator != "cpu" else 1)


def strategy(settings: TrainerConfig) -> str | Strategy:
    """Return Lightning's strategy; distributed ones time out after 10 minutes instead of 30."""
    ranks = world_size(settings)
    if settings.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=ranks,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,  # one file, as with every other strategy
            timeout=TIMEOUT,
        )
    if settings.strategy == "ddp" or ranks > 1:
        return DDPStrategy(timeout=TIMEOUT)
    return settings.strategy


def exit_with_parent() -> None:
    """Exit this process when the one that started it is gone, for example killed.

    Lightning's launcher watches its children only while it lives; an orphaned rank would hold its
    device until the collective call times out. torchrun and SLURM end their processes themselves.
    """
    if launcher() is None and _is_child():
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _is_child() -> bool:
    """Return whether Lightning started this process."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)
