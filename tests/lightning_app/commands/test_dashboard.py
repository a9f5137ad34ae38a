"""The dashboard in W&B: its specification, and what W&B's client sends to a server."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from datamodules.core.atomic import write_json
from lightning_app.cli import main
from lightning_app.commands.dashboard import workspace
from lightning_app.config import Config, save_config
from lightning_app.loggers.csv_logger import CsvLog

INSTALLED = importlib.util.find_spec("wandb_workspaces") is not None
needed = pytest.mark.skipif(not INSTALLED, reason="the extra dashboard is not installed")
VIEWER = {"id": "VXNlcjox", "entity": "someone", "username": "someone", "email": "", "flags": "{}"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with two tasks and an unseen dataset, as a training leaves it."""
    save_config(Config(), tmp_path / "config.yaml")
    log = CsvLog(tmp_path / "metrics.csv")
    log.log_metrics({"train/glas/glands/loss": 1.0, "train/nct (2)/tissue/loss": 2.0}, 0)
    log.log_metrics({"val/glas/glands/dice": 0.5, "val/nct (2)/tissue/f1_macro": 0.4}, 0)
    roles = {"glas": "train", "nct (2)": "train", "idc": "unseen"}
    datasets = {name: {"role": role} for name, role in roles.items()}
    write_json(tmp_path / "provenance.json", {"datasets": datasets})
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A server that speaks as much of W&B's interface as is needed; what it was asked to save."""
    saved: list[dict[str, Any]] = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"]))
            answer: dict[str, Any] = {"data": {"viewer": {**VIEWER, "teams": {"edges": []}}}}
            if b"upsertView" in text:
                asked = json.loads(text)["variables"]
                saved.append(asked)
                view = {"id": "VmlldzoxMjM=", "name": asked["name"]}
                answer = {"data": {"upsertView": {"view": view, "inserted": True}}}
                if asked["entityName"] == "stranger":
                    answer = {"data": None, "errors": [{"message": "project not found"}]}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{running.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_MODE", "online")
        yield saved
        running.shutdown()


def sections_of(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Settings of the panels of each section."""
    sections = spec["section"]["panelBankConfig"]["sections"]
    return {one["name"]: [panel["config"] for panel in one["panels"]] for one in sections}


@needed
def test_the_dashboard_groups_the_very_keys_that_a_run_logs(run: Path) -> None:
    view = workspace(run, "someone", "histology-multitask")._to_model()
    sections = sections_of(json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True)))
    assert list(sections) == [
        "Overview",
        "Loss of each task",
        "Metric of each task",
        "Probe curves",
        "Gradients",
        "Throughput",
        "Predictions",
    ]
    drawn = {name: [p.get("metrics") for p in panels] for name, panels in sections.items()}
    assert drawn["Loss of each task"] == [["train/glas/glands/loss"], ["train/nct (2)/tissue/loss"]]
    metrics = [["val/glas/glands/dice"], ["val/nct (2)/tissue/f1_macro"]]
    assert drawn["Metric of each task"] == metrics
    axes = {p["xAxis"] for panels in sections.values() for p in panels if "metrics" in p}
    assert axes == {"trainer/global_step"}
    pictures, course = sections["Probe curves"]
    assert pictures["mediaKeys"] == ["curves/idc"]
    assert (course["metricRegex"], course["useMetricRegex"]) == ("probe/idc/.*", True)
    assert [p["mediaKeys"] for p in sections["Predictions"]] == [
        ["panels/glas/glands"],
        ["panels/nct (2)/tissue"],
    ]


@needed
def test_the_client_of_wandb_saves_it_and_its_address_is_printed(
    run: Path, server: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", str(run)]) == 0
    (asked,) = server
    assert (asked["entityName"], asked["projectName"]) == ("someone", "histology-multitask")
    assert asked["displayName"] == "Multi-task pretraining"
    assert "Throughput" in sections_of(json.loads(asked["spec"]))
    assert "/someone/histology-multitask?nw=" in capsys.readouterr().out
    assert main(["dashboard", str(run), "--entity", "stranger"]) == 2
    assert "project not found" in capsys.readouterr().err


@needed
def test_without_a_login_the_dashboard_names_the_mend(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["dashboard", str(run)]) == 2
    assert capsys.readouterr().err.startswith("error: dashboard: no W&B login; run `wandb login`")


@pytest.mark.skipif(INSTALLED, reason="the extra dashboard is installed")
def test_without_its_extra_the_dashboard_names_the_mend(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", str(run)]) == 2
    assert "make install EXTRAS='offline-weights dev dashboard'" in capsys.readouterr().err
