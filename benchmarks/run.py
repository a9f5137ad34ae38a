"""All benchmarks in turn, each in a process of its own: `make bench`.

    python -m benchmarks.run [NAME ...]     writes results/speed.json and docs/speed.md

Ratios hold within one benchmark on one machine; rates and seconds depend on both. Where some are
named, their rows replace the earlier ones of the same machine and versions.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.timing import facts

NAMES = ("reading", "loading", "training", "heads", "probing", "probe_sweep", "preparing",
         "starting", "memory_by_tasks")  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "speed.json"
PAGE = ROOT / "docs" / "speed.md"
LIMIT_S, TOTAL_S = 200, 900  # of one benchmark, and of all


def main() -> None:
    """Measure, write the result, and print the table."""
    if sys.argv[1:2] == ["--one"]:
        with tempfile.TemporaryDirectory() as folder:
            rows = import_module(f"benchmarks.{sys.argv[2]}").measure(Path(folder))
        print(json.dumps(rows))
        return
    result: dict[str, Any] = {**facts(), "runs": {}}
    if sys.argv[1:] and RESULT.is_file():
        result["runs"] = comparable(json.loads(RESULT.read_text()), result)
    started, load = time.monotonic(), round(os.getloadavg()[0], 1)
    for name in sys.argv[1:] or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        left = TOTAL_S - (time.monotonic() - started)
        rows = one(name, max(1.0, min(LIMIT_S, left)))
        result["runs"][name] = {"date": result["date"], "load_average": load, "rows": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(page(result))
    print(table(result))


def comparable(earlier: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Earlier benchmarks, if they were of this machine and these versions."""
    same = all(earlier[key] == now[key] for key in ("machine", "versions"))
    return dict(earlier["runs"]) if same else {}


def one(name: str, limit_s: float) -> list[dict[str, Any]]:
    """The rows of one benchmark; none if it failed or took too long, which its output tells."""
    command = [sys.executable, "-m", "benchmarks.run", "--one", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
        process.wait()
        print(f"{name}: took more than {limit_s:.0f} s", file=sys.stderr)
        return []
    rows: list[dict[str, Any]] = []
    if process.returncode == 0:
        rows = json.loads(printed.splitlines()[-1])
    return rows


def table(result: dict[str, Any]) -> str:
    """The rows in Markdown."""
    lines = ["| | what | measured | goal | met |", "|---|---|---|---|---|"]
    rows = [row for run in result["runs"].values() for row in run["rows"]]
    for found in sorted(rows, key=lambda found: str(found["goal"])):
        met = "yes" if found["met"] else "no"
        value, wanted = f"{found['value']:.2f}", found["wanted"]
        lines.append(f"| {found['goal']} | {found['what']} | {value} | {wanted} | {met} |")
    failed = [name for name, run in result["runs"].items() if not run["rows"]]
    lines += [f"| | {name} | failed or took too long | | no |" for name in failed]
    return "\n".join(lines) + "\n"


def page(result: dict[str, Any]) -> str:
    """The table with what it depends on."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    runs = ", ".join(
        f"{name} {run['date']} {run['load_average']}" for name, run in result["runs"].items()
    )
    return (
        "# Speed\n\n"
        "`make bench` measures this table and writes this page. Ways that are compared take turns, "
        "and a number without a unit is the median over rounds of the ratio of their speeds, so "
        "it hardly depends on the machine. Peers are installed in an environment of their own. The "
        "ratio to LitData is of batches of items at random through `StreamingDataset` with "
        "`batch_decode=0`; by default it decodes some 66 raw images for each one that is read at "
        "random. The store copies pixels by `preadv` and maps no file: a page that cannot be "
        "read must become an error and not end the process. So `preadv` is its limit.\n\n"
        f"{table(result)}\n"
        f"Measured with {result['machine']}. {versions}. Benchmarks, with the date and the "
        f"load average when they were called: {runs}.\n\n"
        "Nothing here was measured on a GPU. `python -m benchmarks.gpu` measures one in less than "
        "nine minutes; its rehearsal on a CPU is one of the tests.\n"
    )


if __name__ == "__main__":
    main()
