"""Memory of training against the number of tasks, at a fixed number of tasks per micro-batch.

    python benchmarks/memory_by_tasks.py            writes benchmarks/results/memory_by_tasks.json

Each row is a process of its own that makes three optimizer steps, each of them a whole round over
all tasks, on random images: classification, segmentation and detection in turn. Peak memory is the
process's largest resident set; the model with optimizer states is what it held without any step.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

TASKS = (2, 5, 10, 20)
PER_BATCH = (2, 0)  # 0: all in one micro-batch
ENCODER, IMAGES, SIDE = "resnet18", 8, 128


def measure(tasks: int, per_batch: int) -> dict[str, float]:
    """Train in this process; peak and resting memory in MiB."""
    import torch

    from datamodules.core.records import Task, TaskKind
    from datamodules.stream.batch import DetectionTarget, MultiTaskBatch, Part
    from models.config import ModelConfig, OptimConfig
    from models.module import MultiTaskModule
    from models.tasks import TaskSpec
    from models.training.optimizer import parameter_groups

    torch.set_num_threads(1)
    kinds = (TaskKind.CLASSIFICATION, TaskKind.SEGMENTATION, TaskKind.DETECTION)
    specs = [TaskSpec(f"d{i}", Task("t", kinds[i % 3], ("a", "b")), 0.5) for i in range(tasks)]
    width = per_batch or tasks
    groups = [specs[i : i + width] for i in range(0, tasks, width)]
    settings = ModelConfig(encoder=ENCODER, weights="random", neck_channels=64)
    module = MultiTaskModule(specs, settings, OptimConfig(), SIDE, len(groups))
    optimizer = torch.optim.AdamW(parameter_groups(module.model, OptimConfig()))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    resting = peak_mib()

    def batch(group: list[TaskSpec]) -> MultiTaskBatch:
        parts = []
        for number, spec in enumerate(group):
            match spec.task.kind:
                case TaskKind.CLASSIFICATION:
                    target = torch.randint(0, 2, (IMAGES,))
                case TaskKind.SEGMENTATION:
                    target = torch.randint(0, 2, (IMAGES, SIDE, SIDE))
                case _:
                    corner = torch.rand(5 * IMAGES, 2) * (SIDE - 20)
                    labels = torch.randint(0, 2, (5 * IMAGES,))
                    image = torch.arange(IMAGES).repeat_interleave(5)
                    target = DetectionTarget(torch.cat([corner, corner + 20], 1), labels, image)
            start = number * IMAGES
            index = torch.arange(IMAGES)
            parts.append(Part(spec.dataset, start, start + IMAGES, {"t": target}, index, IMAGES))
        pixels = torch.randint(0, 256, (len(group) * IMAGES, SIDE, SIDE, 3), dtype=torch.uint8)
        return MultiTaskBatch(pixels, parts)

    for _ in range(3):
        for group in groups:
            prepared = module.on_after_batch_transfer(batch(group), 0)
            (module.micro_batch_loss(prepared) / len(groups)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return {"model_mib": round(resting), "peak_mib": round(peak_mib())}


def peak_mib() -> float:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure all rows, each in a fresh process, and write them down."""
    if len(sys.argv) == 3:
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
        return
    import timm
    import torch

    rows = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    for per_batch in PER_BATCH:
        for tasks in TASKS:
            command = [sys.executable, __file__, str(tasks), str(per_batch)]
            printed = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            ).stdout
            row = {"tasks": tasks, "tasks_per_batch": per_batch, **json.loads(printed)}
            row["steps_mib"] = row["peak_mib"] - row["model_mib"]
            print(row, flush=True)
            rows.append(row)
    result = {
        "what": f"{ENCODER}, {IMAGES} images of {SIDE} px a task, float32, AdamW",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores; not measured on a GPU",
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        "rows": rows,
    }
    path = HERE / "results" / "memory_by_tasks.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
