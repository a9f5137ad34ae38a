"""What the pages tell to write is written, run and proved by the tests that the pages show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

COPIED = ("datamodules", "models", "evaluation", "lightning_app", "pyproject.toml")


def follow(page: str, repository: Path, folder: Path) -> None:
    """Copy the project, then write the files and apply the changes that a page shows."""
    for name in (*COPIED, "tests/__init__.py", "tests/support"):
        source = repository / name
        if source.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-r", source, folder / name], check=True)
    text = (repository / "docs" / page).read_text()
    for name, content in re.findall(r'```python title="(.*?)"\n(.*?)```', text, flags=re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    for change in re.findall(r"```diff\n(.*?)```", text, flags=re.DOTALL):
        run = subprocess.run(
            ["git", "apply", "-C1", "-"],
            cwd=folder,
            input=change,
            text=True,
            capture_output=True,
        )
        assert run.returncode == 0, f"{page}: a change does not apply: {run.stderr}\n{change}"


@pytest.mark.parametrize(
    ("page", "test"),
    [
        ("adding_a_dataset.md", "tests/datamodules/public/test_example_polyps.py"),
        ("adding_a_head.md", "tests/models/network/test_ordinal_head.py"),
    ],
)
def test_the_steps_of_a_page_pass_its_own_test(
    page: str, test: str, repository: Path, tmp_path: Path
) -> None:
    follow(page, repository, tmp_path)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    paths = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\b[3-9] passed", run.stdout), run.stdout
