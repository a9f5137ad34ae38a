"""Which recipe runs: the real one where there are data, the embedded demo where there are none."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from datamodules.registry import build
from lightning_app.config import Config, load_config

RECIPE = Path("configs/pretrain.yaml")
DEMO = Path("configs/demo.yaml")


def choose_config(path: Path | None, overrides: list[str]) -> Config:
    """The configuration of a `pretrain` call.

    A file that was named is taken. Otherwise the real recipe is taken when `data.root` was
    given, or when any of its datasets or stores lies where it looks for them; it then never
    falls back. Only a machine without any data runs the demo.
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
    """Say, before anything else, that the tissue is synthetic."""
    if not config.data.forge:
        return
    text = (
        "[bold]DEMO: the tissue is SYNTHETIC.[/bold] It is drawn by a program, so the scores say "
        "that the whole chain works,\nnot what an encoder is worth. With real data: "
        "[bold]make pretrain DATA=<folder of datasets>[/bold]"
    )
    Console().print(Panel(text, border_style="yellow"))
