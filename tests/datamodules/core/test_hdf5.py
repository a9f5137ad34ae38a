"""HDF5 files on a disk that becomes full while they are written."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np

from datamodules.core.hdf5 import NewFile, _KeepsErrors

LIMITED = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    {body}
"""


def run_limited(body: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which no file may grow beyond 300 kB."""
    script = textwrap.dedent(LIMITED).format(body=textwrap.dedent(body).strip())
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_an_array_that_fits_in_part_is_an_error(tmp_path: Path) -> None:
    run = run_limited(
        """
        from datamodules.core.hdf5 import NewFile
        try:
            with NewFile(Path(sys.argv[1])) as file:
                file["x"] = np.arange(10**6)
        except OSError as error:
            print(error.strerror)
        """,
        tmp_path / "x.h5",
    )
    assert (run.returncode, run.stdout) == (0, "File too large\n"), run.stderr


def test_a_file_that_cannot_grow_ends_in_an_error_and_not_in_a_crash(tmp_path: Path) -> None:
    run = run_limited(
        """
        from datamodules.core.hdf5 import NewFile
        try:
            with NewFile(Path(sys.argv[1])) as file:
                data = file.create_dataset("x", (0, 1000), maxshape=(None, 1000), chunks=(1, 1000))
                for row in range(300):
                    data.resize(row + 1, axis=0)
                    data[row] = np.random.default_rng(row).random(1000)
        except OSError as error:
            print(type(error).__name__, error.filename)
        """,
        tmp_path / "x.h5",
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["OSError", str(tmp_path / "x.h5")]


def test_more_than_the_system_writes_in_one_call_is_no_error() -> None:
    with _KeepsErrors("/dev/null", "wb") as file:
        assert file.write(np.zeros(2**31 + 5, np.uint8)) == 2**31 + 5
        assert file.error is None


def test_what_is_written_is_what_h5py_reads(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (20, 30, 30, 3), np.uint8)
    with NewFile(tmp_path / "x.h5") as file:
        data = file.create_dataset("x", (0, 30, 30, 3), np.uint8, maxshape=(None, 30, 30, 3))
        data.resize(20, axis=0)
        data[:] = values
        file.attrs["a"] = "µm"
    with h5py.File(tmp_path / "x.h5") as file:
        assert np.array_equal(file["x"][:], values)
        assert file.attrs["a"] == "µm"


def test_a_store_on_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, forged) -> None:
    root = forged("kather2016")
    run = run_limited(
        """
        from lightning_app.cli import main
        sys.exit(main(["datasets", "prepare", "kather2016", *sys.argv[1:], "--workers", "1"]))
        """,
        *("--root", root.parent, "--stores", tmp_path / "stores"),
    )
    assert run.returncode == 2, run.stderr
    (line,) = [text for text in run.stderr.splitlines() if text.startswith("error: ")]
    assert "kather2016-" in line and "its disk has room" in line
    assert not [p for p in (tmp_path / "stores").iterdir() if p.suffix != ".lock"]
