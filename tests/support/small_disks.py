"""Real disks that become full, read-only or vanish while a program writes to them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_app.cli import main


class Disk:
    """A small file system in memory, mounted on a new folder.

    Args:
        place: the folder.
        megabytes: its size.
    """

    def __init__(self, place: Path, megabytes: int) -> None:
        self.place = place
        self._ballast = place / "ballast"
        self._options = f"size={megabytes}m"
        place.mkdir()
        if not sys.platform.startswith("linux") or os.geteuid():
            pytest.skip("only root on Linux may mount a small disk")
        if not self._mount(self._options):
            pytest.skip("this machine forbids mounting")

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.place)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @property
    def free(self) -> int:
        """Free bytes."""
        return shutil.disk_usage(self.place).free

    def fill(self, leave: int = 0) -> None:
        """Leave so many free bytes, rounded up to whole pages."""
        with self._ballast.open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), max(1, self.free - leave))

    def make_room(self) -> None:
        """Undo `fill`."""
        self._ballast.unlink()

    def set_writable(self, writable: bool) -> None:
        """Mount it again, for reading alone or for writing too.

        As after an error of a real disk, files that are open for writing do not prevent it.
        """
        flags = ["mount", "-o", f"remount,{'rw' if writable else 'ro'}", str(self.place)]
        if subprocess.run(flags, capture_output=True, check=False).returncode:
            pytest.fail("the disk is busy and cannot be mounted anew")

    def unmount(self) -> None:
        """Take it away, also from under programs that use it."""
        subprocess.run(["umount", "-l", str(self.place)], capture_output=True, check=False)

    def files(self) -> list[str]:
        """Paths of all files, without locks and ballast."""
        found = (path for path in self.place.rglob("*") if path.is_file())
        names = (str(path.relative_to(self.place)) for path in found if path != self._ballast)
        return sorted(name for name in names if not name.endswith(".lock"))


def run(
    arguments: list[str], log: Path, meanwhile: Callable[[Callable[[], bool]], None] | None = None
) -> tuple[int, str]:
    """Run a command of the program in a process of its own; return its code and what it printed.

    Args:
        arguments: of `python -m lightning_app`.
        log: file for what it prints.
        meanwhile: is called while it runs, with a function that tells whether it still does.
    """
    process = os.fork()
    if not process:
        code = 70
        try:
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            code = main(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    ended: list[int] = []

    def runs() -> bool:
        if not ended and (status := os.waitpid(process, os.WNOHANG))[0]:
            ended.append(os.waitstatus_to_exitcode(status[1]))
        return not ended

    if meanwhile is not None:
        meanwhile(runs)
    until = time.monotonic() + 120
    while runs():
        assert time.monotonic() < until, f"still running: {log.read_text()[-2000:]}"
        time.sleep(0.01)
    return ended[0], log.read_text()


def assert_one_line(result: tuple[int, str], *words: str) -> None:
    """The program ended with code 2 and one line that holds these words, without a traceback."""
    code, printed = result
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (2, 1), printed
    assert "Traceback" not in printed, printed
    for word in words:
        assert word in lines[0], printed
