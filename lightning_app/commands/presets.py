"""The verb `encoders`: public encoders that can be probed by name."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from models.inference.hub_access import CACHED, how_to_get, is_cached
from models.inference.presets import PRESETS, Preset, find_preset

WIDTH = 130  # columns of the table if the terminal reports fewer
GATED = {True: "yes", False: "no", None: "unknown"}


def run_encoders(options: argparse.Namespace) -> int:
    """Print all presets, or all facts of one; return the exit code."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if options.action == "show":
        for key, value in _facts(find_preset(options.name)).items():
            console.print(f"{key:12}{value}")
        return 0
    shown = Table("name", "repository", "pooling", "dim", "px", "µm/px", "licence", "gated", "")
    for preset in PRESETS.values():
        shown.add_row(
            preset.name,
            preset.hub,
            preset.pool,
            str(preset.dim),
            str(preset.input_size),
            _resolution(preset),
            preset.licence,
            GATED[preset.gated],
            CACHED if is_cached(preset) else "",
        )
    console.width = max(console.width, WIDTH)
    console.print(shown, soft_wrap=False)
    return 0


def _resolution(preset: Preset) -> str:
    return f"{preset.mpp:g}" if preset.mpp else "unknown"


def _facts(preset: Preset) -> dict[str, str]:
    numbers = {key: ", ".join(f"{v:g}" for v in getattr(preset, key)) for key in ("mean", "std")}
    arguments = ", ".join(f"{key}={value}" for key, value in preset.arguments.items())
    return {
        "name": preset.name,
        "repository": preset.hub,
        "library": preset.library,
        "arguments": arguments or "those of its config.json",
        "pooling": f"{preset.pool}, {preset.dim} numbers",
        **numbers,
        "input": f"{preset.input_size} px, {_resolution(preset)} µm/px recommended",
        "licence": preset.licence,
        "gated": GATED[preset.gated],
        "facts from": preset.source,
        "weights": CACHED if is_cached(preset) else how_to_get(preset),
    }
