"""Memory of training against the number of tasks, two or all in a micro-batch (goal i).

Each number is a process of its own that makes three optimizer steps, each of them a whole round
over all tasks. Peak memory is the process's largest
resident set, less what the model with gradients and optimizer states held without any step.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.timing import Rows, row

IMAGES, SIDE = 8, 128


def steps_mib(tasks: int, k: int) -> float:
    """Train in this process; the memory of its steps in MiB."""
    import torch

    from benchmarks.training import Loop
    from models.config import ModelConfig, OptimConfig
    from models.training.optimizer import parameter_groups

    torch.set_num_threads(1)
    loop = Loop(ModelConfig("resnet18", "random", neck_channels=64), tasks, k, IMAGES, SIDE)
    optimizer = torch.optim.AdamW(parameter_groups(loop.module.model, OptimConfig()))
    for parameter in loop.module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    del optimizer
    resting = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop.bare(3)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resting) / 1024


def measure(folder: Path) -> Rows:
    """Growth of the memory of a step from two tasks to twenty."""
    found = {}
    for tasks, k in ((2, 2), (20, 2), (20, 20)):
        code = f"from benchmarks.memory_by_tasks import steps_mib; print(steps_mib({tasks}, {k}))"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        command = [sys.executable, "-c", code]
        root = Path(__file__).resolve().parent.parent
        done = subprocess.run(
            command, cwd=root, env=environment, check=True, capture_output=True, text=True
        )
        found[f"{tasks} tasks, {k} in a micro-batch"] = round(float(done.stdout))
    what = "memory of a step with 20 tasks, of that with 2"
    few, many, _ = found.values()
    return [row("i", what, many / few, 1.3, most=True, mib=found)]
