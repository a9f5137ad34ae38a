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
from lightning_app.commands.doctor import Check, Level


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, into which a test installs distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def install(site: Path, name: str, version: str) -> None:
    metadata = site / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_the_test_environment_has_no_clash_and_meets_the_requirements() -> None:
    assert list(doctor.clashes()) == []
    assert [check.level for check in doctor.packages()] == [Level.OK]


@pytest.mark.parametrize(
    ("name", "version", "level"),
    [
        ("albumentationsx", "2.1.0", Level.ERROR),
        ("lightning-app", "2.3.2", Level.WARNING),
        ("lightning", "2.6.6", Level.WARNING),
    ],
)
def test_a_clashing_distribution_is_reported_with_a_remedy(
    site: Path, name: str, version: str, level: Level
) -> None:
    install(site, name, version)
    check = named(list(doctor.clashes()), name)
    assert check.level is level
    assert "pip uninstall" in check.text or "make install" in check.text


@pytest.mark.parametrize("name", ["lightning", "pytorch-lightning"])
@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_a_malicious_release_is_an_error(site: Path, name: str, version: str) -> None:
    install(site, name, version)
    check = named(list(doctor.clashes()), name)
    assert check.level is Level.ERROR
    assert "malicious" in check.text
    assert version in check.text


def test_an_outdated_release_and_a_missing_package_are_errors(site: Path, tmp_path: Path) -> None:
    install(site, "slide-reader", "1.9")
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[project]\ndependencies = ["slide-reader>=2.0", "no-such-package"]\n')
    old, missing = doctor.packages(pyproject)
    assert (old.level, missing.level) == (Level.ERROR, Level.ERROR)
    assert "1.9, needs slide-reader>=2.0" in old.text
    assert missing.text.startswith("missing, needs no-such-package")


def test_a_malicious_package_is_never_imported(tmp_path: Path) -> None:
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


def test_a_missing_folder_is_checked_at_its_nearest_existing_parent(
    tmp_path: Path,
) -> None:
    (check,) = doctor.disk(tmp_path / "runs" / "later")
    assert f"at {tmp_path}," in check.text
    assert not (tmp_path / "runs").exists()


def test_a_file_instead_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    (check,) = doctor.disk(tmp_path / "data" / "stores")
    assert check.level is Level.ERROR


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


def test_a_hub_that_responds_counts_as_reachable(hub: str) -> None:
    assert doctor.answers(lambda: head(hub), 10.0)


def test_a_hub_that_refuses_connections_counts_as_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but not listening
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert not doctor.answers(lambda: head(address), 10.0)


def test_a_hub_that_never_responds_costs_only_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        assert not doctor.answers(lambda: head(address), 0.3)
        assert time.monotonic() - started < 5


def test_all_checks_run_without_network(tmp_path: Path) -> None:
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


def test_the_table_shows_the_level_as_a_word() -> None:
    page = io.StringIO()
    console = Console(file=page, width=100, color_system=None)
    doctor.show([Check(Level.WARNING, "disk", "nearly full [/data]")], console)
    assert page.getvalue().split() == ["warning", "disk", "nearly", "full", "[/data]"]
