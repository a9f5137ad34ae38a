"""Runs small trainings in several attempts; a signal ends each but the last one of a run.

Run as a script by test_resume.py: `python kill_and_resume_script.py FOLDER SETTINGS RUNS`.
SETTINGS is a JSON list of settings of all runs, "key=value". RUNS is a JSON object: by name of a
run, when to end its attempts, one entry each:

    {"at": hook, "step": n}    from that optimizer step on, with an optional "signal", or "within"
                               so many steps
    {"seconds": t}             after its start

Slow imports happen once; every attempt is a fork that trains as the program does, except that it
draws no predictions.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from threading import Timer
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from datamodules.core.errors import StoppedError, UserError
from datamodules.multitask import MultiTaskDataModule
from lightning_app import pretrain as train
from lightning_app.callbacks.sample_predictions import ShowPanels
from lightning_app.config import Config
from lightning_app.loggers.log_filters import install_log_filters
from lightning_app.run.resume import newest_unfinished
from tests.support.train_ranks import leave_out, small_run


class EndAt(Callback):
    """Ends the process with a signal at a hook, once a number of optimizer steps is done.

    Args:
        at: the hook.
        step: optimizer steps before.
        number: number of the signal.
        within: delay as a fraction of the duration of a step; 0 ends it at once.
    """

    def __init__(self, at: str, step: int, number: int, within: float) -> None:
        self.step = step
        self.number = number
        self.within = within
        self.since = time.monotonic()
        self.seen = 0
        setattr(self, at, self._end)

    def _end(self, trainer: pl.Trainer, *_: Any) -> None:
        lasted = time.monotonic() - self.since
        if trainer.global_step != self.seen:
            self.since, self.seen = time.monotonic(), trainer.global_step
        if trainer.global_step >= self.step and self.number:
            number, self.number = self.number, 0
            if self.within:
                pause = min(lasted, 1.0) * self.within
                Timer(pause, os.kill, (os.getpid(), number)).start()
            else:
                os.kill(os.getpid(), number)


def attempt(config: Config, kill: dict[str, Any] | None) -> int:
    """Train in a process of its own until the run or this attempt ends; return the exit code."""
    process = os.fork()
    if process:
        if kill and "seconds" in kill:
            time.sleep(kill["seconds"])
            os.kill(process, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 1
    try:
        assembled = train.assemble

        def with_end(*arguments: Any) -> train.Run:
            run = leave_out(assembled(*arguments), ShowPanels)
            if kill and "at" in kill:
                number, within = kill.get("signal", signal.SIGKILL), kill.get("within", 0.0)
                end = EndAt(kill["at"], kill["step"], number, within)
                run.trainer.callbacks.insert(0, end)
            return run

        train.assemble = with_end
        train.pretrain(config, newest_unfinished(config))
        code = 0
    except StoppedError as stop:
        print(stop)
        code = stop.exit_code
    except UserError as error:
        print(f"error: {error}")
        code = 2
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def newest(out: Path) -> int:
    """Return the optimizer steps of the newest checkpoint."""
    paths = out.glob("*/checkpoints/step*.ckpt")
    return max((int(path.stem.removeprefix("step")) for path in paths), default=0)


def main() -> None:
    """Run the attempts of each run until one succeeds."""
    folder, settings, runs = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    install_log_filters()
    config = small_run(folder, *settings)
    stream = MultiTaskDataModule(config.data)
    train.make_ready(list(stream.datasets.values()), config)  # its processes must not be forked
    for name, kills in runs.items():
        config = small_run(folder, *settings, f"out={folder}/{name}")
        for kill in [*kills, None]:
            code = attempt(config, kill)
            print(f"{name}: {code} at {newest(folder / name)}", flush=True)
            if code == 0:
                break


if __name__ == "__main__":
    main()
