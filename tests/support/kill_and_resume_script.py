"""Runs small trainings in several lives, each but the last of a run ended by a signal.

Run as a script by test_resume.py: `python kill_and_resume_script.py FOLDER SETTINGS RUNS`.
SETTINGS is a JSON list of settings of all runs, "key=value". RUNS is a JSON object: by the name of
a run the moments at which one of its lives ends, one after the other:

    {"at": hook, "step": n}    from that optimizer step on, with an optional "signal", or "within"
                               so many steps
    {"seconds": t}             wherever the life is then

What starts slowly is imported once; every life is a fork that trains as the program would, except
that it draws no predictions.
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
from lightning_app.loggers.log_filters import hush
from lightning_app.run.resume import newest_unfinished
from tests.support.train_ranks import leave_out, small_run


class EndAt(Callback):
    """Ends the process with a signal at a hook, once a number of optimizer steps is done.

    Args:
        at: the hook.
        step: optimizer steps before.
        number: of the signal.
        within: steps that go on meanwhile, in parts of how long one takes; 0 ends it at once.
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


def live(config: Config, kill: dict[str, Any] | None) -> int:
    """Train in a process of its own until the run or this life ends; return the exit code."""
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
    """Optimizer steps behind the newest checkpoint."""
    found = out.glob("*/checkpoints/step*.ckpt")
    return max((int(path.stem.removeprefix("step")) for path in found), default=0)


def main() -> None:
    """Live, again and again."""
    folder, settings, runs = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    hush()
    config = small_run(folder, *settings)
    stream = MultiTaskDataModule(config.data)
    train.make_ready(list(stream.datasets.values()), config)  # its processes must not be forked
    for name, kills in runs.items():
        config = small_run(folder, *settings, f"out={folder}/{name}")
        for kill in [*kills, None]:
            code = live(config, kill)
            print(f"{name}: {code} at {newest(folder / name)}", flush=True)
            if code == 0:
                break


if __name__ == "__main__":
    main()
