"""A GPU's speed in one script, without network, in less than nine minutes.

    python -m benchmarks.gpu [RESULT.json]

Ten datasets (classification, segmentation and detection in turn) in stores made of forged tissue,
224 px, bf16-mixed, channels-last. Each part is a process of its own, so that one that fails leaves
the others; a part that failed is in the result with its last line. It is rehearsed on a CPU with
tiny sizes by tests/benchmarks/test_gpu.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_parts import (
    TINY,
    Sizes,
    compiled,
    loading,
    synchronisations,
    use,
    variants,
)
from benchmarks.gpu_training import resume, two_processes
from benchmarks.timing import facts

ROOT = Path(__file__).resolve().parent.parent


def demo(sizes: Sizes, encoder: str) -> dict[str, Any]:
    """The demo from forged data to the report."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "lightning_app", "pretrain", "data.forge=24",
            f"data.root={folder}/published", f"data.stores={folder}/stores", f"out={folder}/runs",
            f"model.encoder={encoder}", "model.weights=random", "wandb.mode=disabled",
            "trainer.epochs=1", f"trainer.steps_per_epoch={sizes.steps}", "data.unseen={}",
            f"data.image_size={max(sizes.side, 64)}", f"data.workers={sizes.workers}",
        ]  # fmt: skip
        said = last_line(command, sizes.limit_s)
    return {"seconds": round(time.perf_counter() - started, 1), "last line": said}


def last_line(command: list[str], limit_s: int) -> str:
    """What a command prints last."""
    environment = {**os.environ, "TIMM_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, timeout=limit_s, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines() or [""]
    return f"exit code {done.returncode}: {lines[-1][:200]}"


PARTS: dict[str, Callable[[Sizes, str], dict[str, Any]]] = {
    part.__name__: part
    for part in (loading, use, synchronisations, variants, compiled, resume, two_processes, demo)
}
ONCE = ("resume", "two_processes", "demo")  # for one encoder


def measure(sizes: Sizes, parts: tuple[str, ...] = tuple(PARTS)) -> dict[str, Any]:
    """All parts, each in a process of its own."""
    started = time.monotonic()
    result: dict[str, Any] = {**facts(), "not_measured_on_a_gpu": sizes.device != "cuda"}
    if sizes.device == "cuda":
        result["machine"] = f"{torch.cuda.get_device_name()}, {os.cpu_count()} CPU cores"
    for encoder in sizes.encoders:
        for name in parts:
            if name in ONCE and encoder != sizes.encoders[-1]:
                continue
            code = (
                "import json, benchmarks.gpu as g; "
                f"print(json.dumps(g.PARTS[{name!r}](g.{sizes!r}, {encoder!r})))"
            )
            try:
                left = sizes.total_s - (time.monotonic() - started)
                limit = max(1.0, min(sizes.limit_s, left))
                command = [sys.executable, "-c", code]
                done = subprocess.run(
                    command, cwd=ROOT, text=True, timeout=limit, capture_output=True
                )
                text = done.stdout if done.returncode == 0 else done.stderr
                said = (text.strip().splitlines() or [""])[-1]
                found = json.loads(said) if done.returncode == 0 else {"failed": said[:300]}
            except subprocess.TimeoutExpired:
                found = {"failed": f"took more than {limit:.0f} s"}
            result.setdefault(encoder, {})[name] = found
            print(encoder, name, found, file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    measured = measure(Sizes() if torch.cuda.is_available() else TINY)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(measured, indent=1) + "\n")
    print(json.dumps(measured, indent=1))
