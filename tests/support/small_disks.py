"""Real disks that become full, read-only or vanish while a program writes to them."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

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
        self._mounts = 1
        place.mkdir()
        if not sys.platform.startswith("linux") or os.geteuid():
            pytest.skip("only root on Linux may mount a small disk")
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this machine forbids mounting")

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

    def protect(self) -> None:
        """Make it read-only, as after an error of a real disk, even if files are open."""
        place = str(self.place)  # mounted over itself: the first mount is busy while files are open
        subprocess.run(["mount", "--bind", place, place], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        self._mounts += 1

    def unmount(self) -> None:
        """Take it away, also from under programs that use it."""
        for _ in range(self._mounts):
            subprocess.run(["umount", "-l", str(self.place)], check=True)
        self._mounts = 0

    def files(self) -> list[str]:
        """Paths of all files, without locks and ballast."""
        found = (path for path in self.place.rglob("*") if path.is_file())
        names = (str(path.relative_to(self.place)) for path in found if path != self._ballast)
        return sorted(name for name in names if not name.endswith(".lock"))


class Program:
    """Runs commands of the program, each in a fork of one process that has imported everything.

    The process of the tests itself must not be forked: it may have run autograd.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.small_disks"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def run(
        self,
        arguments: list[str],
        log: Path,
        meanwhile: Callable[[Callable[[], bool]], None] | None = None,
    ) -> tuple[int, str]:
        """Run a command; return its exit code and what it printed.

        Args:
            arguments: of `python -m lightning_app`.
            log: file for what it prints.
            meanwhile: called while it runs, with a function that tells whether it still does.
        """
        tell, told = self._process.stdin, self._process.stdout
        assert tell and told

        def runs() -> bool:
            return not select.select([told], [], [], 0.005)[0]

        tell.write(json.dumps([arguments, str(log)]) + "\n")
        tell.flush()
        if meanwhile is not None:
            meanwhile(runs)
        until = time.monotonic() + 120
        while runs():
            assert time.monotonic() < until, f"still running: {log.read_text()[-2000:]}"
        return int(told.readline()), log.read_text()


def serve() -> None:
    """Run what each line of the input asks for, and print the exit codes."""
    import lightning_app.commands.encoders
    import lightning_app.commands.pretrain  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        arguments, log = json.loads(line)
        process = os.fork()
        if not process:
            code = 70
            try:
                with Path(log).open("w") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                code = main(arguments)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def assert_one_line(result: tuple[int, str], *words: str) -> None:
    """The program ended with code 2 and one line that holds these words, without a traceback."""
    code, printed = result
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (2, 1), printed
    assert "Traceback" not in printed, printed
    for word in words:
        assert word in lines[0], printed


if __name__ == "__main__":
    serve()
