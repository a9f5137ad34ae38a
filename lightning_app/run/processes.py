"""The processes of one run: who starts them, how many there are, and what the first decides."""

from __future__ import annotations

import os
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

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others in one collective call. Nothing that one rank does alone
takes so long: data are prepared before the first call, probes follow the last one."""

_WATCH_S = 2.0


def launcher() -> ClusterEnvironment | None:
    """What torchrun or SLURM says about this process; None where neither started it."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if SLURMEnvironment.detect():
        return SLURMEnvironment(auto_requeue=False)
    return None


def is_first_process() -> bool:
    """Whether this is the process that talks: rank 0 under every launcher."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def decided(name: str, decide: Callable[[], str]) -> str:
    """What the first process of the run decides; the others are told.

    Args:
        name: of the question, the same on all ranks; each is asked once.
        decide: called in the first process only.
    """
    environment = launcher()
    key = f"HISTOLOGY_{name.upper()}"
    if environment is None:
        # Lightning starts the others later, as copies of this process with its environment.
        if is_first_process():
            os.environ[key] = decide()
        return os.environ[key]
    if environment.world_size() == 1:
        return decide()
    store = _store()
    key = f"{key}_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if environment.global_rank() == 0:
        store.set(key, decide())
    return str(store.get(key).decode())


@cache
def _store() -> Any:
    """Where ranks leave each other notes before Lightning brings them together.

    Under torchrun it is the agent's. Elsewhere rank 0 serves it for as long as it lives, on a port
    beside that of the training.
    """
    environment = launcher()
    if environment is None:
        raise RuntimeError("ranks that Lightning starts need no store")
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    port = environment.main_port if served else environment.main_port + 10_000
    first = environment.global_rank() == 0 and not served
    return dist.TCPStore(  # type: ignore[attr-defined]
        environment.main_address, port, is_master=first, timeout=PATIENCE, wait_for_workers=False
    )


def devices_and_nodes(settings: TrainerConfig) -> tuple[int | str, int]:
    """Processes per node and nodes: what torchrun or SLURM started, else what is configured.

    Raises:
        ConfigError: the configuration asks for something else than what was started.
    """
    wanted = settings.devices
    environment = launcher()
    if environment is None:
        if wanted == "auto" and not torch.cuda.is_available():
            return 1, settings.nodes
        return int(wanted) if wanted.isdigit() else wanted, settings.nodes
    world = environment.world_size()
    here = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or world
    per_node = int(here)
    nodes = world // per_node
    if wanted not in ("auto", "-1", str(per_node)) or settings.nodes not in (1, nodes):
        raise ConfigError(
            f"trainer.devices={wanted} and trainer.nodes={settings.nodes}: but {nodes} x "
            f"{per_node} processes were started; leave both out under torchrun and SLURM"
        )
    return per_node, nodes


def world_size(devices: int | str, nodes: int, accelerator: str) -> int:
    """Number of ranks of the run to come."""
    if isinstance(devices, int):
        return devices * nodes
    listed = [part for part in devices.split(",") if part.strip()]
    if devices not in ("auto", "-1"):
        return len(listed) * nodes
    return (torch.cuda.device_count() if accelerator != "cpu" else 1) * nodes


def strategy(wanted: str, ranks: int) -> str | Strategy:
    """Lightning's strategy; distributed ones with our patience in place of half an hour."""
    if wanted == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=ranks,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,  # one file, as with every other strategy
            timeout=PATIENCE,
        )
    if wanted == "ddp" or (wanted == "auto" and ranks > 1):
        return DDPStrategy(timeout=PATIENCE)
    return wanted


def leave_with_the_first() -> None:
    """End this process when the one that started it is gone, killed for instance.

    Lightning's launcher looks after its children only while it lives; a rank left behind would
    hold its device until the collective call times out. torchrun and SLURM do this themselves.
    """
    if launcher() is None and not is_first_process():
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)
