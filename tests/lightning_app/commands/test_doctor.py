from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from lightning_app.commands import doctor
from lightning_app.commands.doctor import Finding, Level


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path into which a test installs distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def install(site: Path, name: str, version: str) -> None:
    metadata = site / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def named(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_the_tested_environment_has_no_clash_and_fits_pyproject() -> None:
    assert list(doctor.clashes()) == []
    assert [finding.level for finding in doctor.packages()] == [Level.OK]


@pytest.mark.parametrize(
    ("name", "version", "level"),
    [
        ("albumentationsx", "2.1.0", Level.ERROR),
        ("lightning-app", "2.3.2", Level.WARNING),
        ("lightning", "2.6.6", Level.WARNING),
    ],
)
def test_a_clashing_distribution_is_named_with_its_remedy(
    site: Path, name: str, version: str, level: Level
) -> None:
    install(site, name, version)
    finding = named(list(doctor.clashes()), name)
    assert finding.level is level
    assert "pip uninstall" in finding.text or "make install" in finding.text


@pytest.mark.parametrize("name", ["lightning", "pytorch-lightning"])
@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_a_malicious_release_is_an_error(site: Path, name: str, version: str) -> None:
    install(site, name, version)
    finding = named(list(doctor.clashes()), name)
    assert finding.level is Level.ERROR
    assert "malicious" in finding.text
    assert version in finding.text


def test_a_release_below_the_floor_and_a_missing_package_are_errors(
    site: Path, tmp_path: Path
) -> None:
    install(site, "slide-reader", "1.9")
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[project]\ndependencies = ["slide-reader>=2.0", "no-such-package"]\n')
    old, missing = doctor.packages(pyproject)
    assert (old.level, missing.level) == (Level.ERROR, Level.ERROR)
    assert "1.9, needs slide-reader>=2.0" in old.text
    assert missing.text.startswith("missing, needs no-such-package")


def test_a_refused_package_is_never_imported(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "pytorch-lightning", "2.6.3")
    trap = site / "pytorch_lightning"
    trap.mkdir()
    (trap / "__init__.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    script = (
        f"import sys; sys.path[:0] = [{str(site)!r}, {str(doctor.PYPROJECT.parent)!r}];"
        "from lightning_app.commands.doctor import run_doctor; sys.exit(run_doctor())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2, run.stderr
    assert "malicious release" in " ".join(run.stdout.split())
    assert not (tmp_path / "imported").exists()


def test_a_folder_that_does_not_exist_yet_is_judged_by_the_nearest_that_does(
    tmp_path: Path,
) -> None:
    (finding,) = doctor.disk(tmp_path / "runs" / "later")
    assert f"at {tmp_path}," in finding.text
    assert not (tmp_path / "runs").exists()


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    (finding,) = doctor.disk(tmp_path / "data" / "stores")
    assert finding.level is Level.ERROR


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def head(address: str) -> None:
    urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=30).close()


def test_a_hub_that_answers_is_reached(hub: str) -> None:
    assert doctor.answers(lambda: head(hub), 10.0)


def test_a_hub_that_refuses_is_not_reached() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert not doctor.answers(lambda: head(address), 10.0)


def test_a_hub_that_keeps_silent_costs_no_more_than_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        assert not doctor.answers(lambda: head(address), 0.3)
        assert time.monotonic() - started < 5


def test_the_whole_diagnosis_needs_no_network_and_covers_the_machine(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from lightning_app.commands.doctor import run_doctor;"
        f"sys.exit(run_doctor(Path({str(tmp_path)!r})))"
    )
    environment = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "COLUMNS": "200"}
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=doctor.PYPROJECT.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for name in ("Python", "packages", "disk", "memory", "W&B", "offline weights", "weights hub"):
        assert name in run.stdout
    assert "HF_HUB_OFFLINE" in run.stdout


def test_the_table_says_the_level_as_a_word() -> None:
    page = io.StringIO()
    console = Console(file=page, width=100, color_system=None)
    doctor.show([Finding(Level.WARNING, "disk", "nearly full [/data]")], console)
    assert page.getvalue().split() == ["warning", "disk", "nearly", "full", "[/data]"]
