"""Programs on a pseudo-terminal of a chosen width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
UNSET = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_INTERACTIVE", "PYTHONUTF8")


def run_python(
    code: str, arguments: list[str], folder: Path, columns: int | None, **environment: str
) -> tuple[int, str]:
    """Run code in a new process; return its exit code and all that it wrote, control codes too.

    Args:
        code: what to run.
        arguments: `sys.argv[1:]`.
        folder: working directory.
        columns: width of the terminal; None gives it a pipe in its place.
        environment: further variables.
    """
    kept = {key: value for key, value in os.environ.items() if key not in UNSET}
    variables = {**kept, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm-256color", **environment}
    command = [sys.executable, "-c", code, *arguments]
    if columns is None:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(command, cwd=folder, env=variables, timeout=900, **streams)
        return done.returncode, done.stdout.decode()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command, cwd=folder, env=variables, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    try:
        while block := os.read(ours, 65536):
            written += block
    except OSError:  # Linux: the other end is closed
        pass
    os.close(ours)
    return process.wait(timeout=900), written.decode()


def lines_of(written: str) -> list[str]:
    """Every line that stood on the terminal at some time."""
    return [line for line in re.split(r"[\r\n]+", CONTROL.sub("", written)) if line.strip()]
