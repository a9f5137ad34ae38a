"""The choice of a recipe: the real one where there are data, else the demo."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from datamodules.registry import build
from lightning_app.config import Config, load_config

RECIPE = Path("configs/pretrain.yaml")
DEMO = Path("configs/demo.yaml")


def choose_config(path: Path | None, overrides: list[str]) -> Config:
    """Return the configuration of a `pretrain` or `ablate` call.

    A named file is used. Otherwise the real recipe is used if `data.root` is given, or if any of
    its datasets or stores exists; it then never falls back. Only a machine without any data runs
    the demo.
    """
    if path is not None:
        return load_config(path, overrides)
    config = load_config(RECIPE, overrides)
    if any(override.startswith("data.root=") for override in overrides) or _has_data(config):
        return config
    return load_config(DEMO, overrides)


def _has_data(config: Config) -> bool:
    entries = {**config.data.train, **config.data.unseen}
    datasets = [build(name, entry, config.data) for name, entry in entries.items()]
    return any(d.root.is_dir() or d.store_path.is_file() for d in datasets)


def print_banner(config: Config) -> None:
    """Print that the tissue is synthetic, before anything else."""
    if config.data.forge:
        text = (
            "[bold]DEMO: the tissue is SYNTHETIC.[/bold] A program draws it, so the scores show "
            "that the pipeline works, not how good an encoder is.\n"
            "With real data: [bold]make pretrain DATA=<folder of datasets>[/bold]"
        )
        Console().print(Panel(text, border_style="yellow"))
