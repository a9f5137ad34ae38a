"""The `pretrain` verb: choose the recipe, run it, show what came out."""

from __future__ import annotations

from pathlib import Path

from lightning_app.demo import choose_config, print_banner
from lightning_app.summary import print_result
from lightning_app.train import is_first_process, pretrain


def run_pretrain(path: Path | None, overrides: list[str]) -> int:
    """Run a pretraining; return the exit code."""
    config = choose_config(path, overrides)
    if is_first_process():
        print_banner(config)
    folder = pretrain(config)
    if is_first_process():
        print_result(folder)
    return 0
