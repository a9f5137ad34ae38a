"""The `datasets` verbs start quickly: they never import torch and what is built on it."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import contextlib, sys
from lightning_app.cli import main

HEAVY = {"torch", "torchvision", "pytorch_lightning", "timm", "sklearn", "wandb", "pandas"}
PLACES = ["--root", "data", "--stores", "stores"]
VERBS = (
    ["--help"],
    ["datasets", "list", *PLACES],
    ["datasets", "show", "breakhis", *PLACES],
    ["datasets", "forge", "breakhis", "--images", "4", *PLACES],
    ["datasets", "prepare", "--recipe", "recipe.yaml", "--workers", "1", *PLACES],
    ["datasets", "verify", "breakhis", "--workers", "1", *PLACES],
    ["datasets", "show", "breakhis", *PLACES],
)
for verb in VERBS:
    with contextlib.suppress(SystemExit):
        assert main(verb) == 0, verb
    imported = sorted(HEAVY & set(sys.modules))
    assert not imported, f"{' '.join(verb)} imports {', '.join(imported)}"
"""


def test_help_and_the_datasets_verbs_import_no_torch(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("data: {train: {breakhis: {}}}")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "contact sheet: breakhis.png" in run.stdout
