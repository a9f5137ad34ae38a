"""A campaign of damaged inputs: `make faults`, or `python -m tests.faults.campaign --case N`.

Case N is made from its number and the seed alone. A traceback, a hang, a partial file or a change
of the store without an error or a note fails, unless `tests.faults.lawful` declares such a change
and finds that nothing else differs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.core.errors import UserError
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import READERS
from datamodules.store.synthetic_mark import MARK
from datamodules.synthetic.forge import forge
from tests.faults.damage import FILES, KEEPERS, Mutation
from tests.faults.difference import Difference, Items, items_of
from tests.faults.lawful import reason_of
from tests.faults.other_inputs import OTHERS
from tests.support.readers import IMAGES, dataset

BAD = ("traceback", "hang", "partial", "differs")
LIMIT_S = 30


@dataclass(frozen=True)
class Case:
    """What became of one damaged input."""

    number: int
    subject: str
    mutation: str
    file: str
    result: str
    reason: str = ""

    def __str__(self) -> str:
        told = f"case {self.number}: {self.subject}, {self.mutation}, {self.file}"
        return f"{told}: {self.result} {self.reason}".rstrip()


class HangError(BaseException):
    """The time of a case is over; no `except Exception` may catch it."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Stop after as much processor time, or ten times as much on the clock."""

    def stop(*_: object) -> None:
        raise HangError

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, 1), (signal.SIGALRM, signal.ITIMER_REAL, 10))
    before = {sign: signal.signal(sign, stop) for sign, _, _ in timers}
    for _, timer, times in timers:
        signal.setitimer(timer, times * seconds)
    try:
        yield
    finally:
        for sign, timer, _ in timers:
            signal.setitimer(timer, 0)
            signal.signal(sign, before[sign])


def judged(work: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """The class of what `work` does, with the reason; an error's line is what the CLI prints."""
    try:
        with time_limit(LIMIT_S):
            return work()
    except UserError as error:
        return "refused", str(error)
    except HangError:
        return "hang", f"over {LIMIT_S} s"
    except OSError as error:
        if error.strerror:  # the command line tells it in one line
            return "refused", str(error)
        return "traceback", repr(error)
    except Exception as error:  # what a campaign looks for
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/" not in f.filename]
        own = [f for f in own if "site-packages" not in f.filename and "/lib/" not in f.filename]
        place = own[-1] if own else place
        return "traceback", f"{error!r:.150} at {Path(place.filename).name}:{place.lineno}"


@dataclass(frozen=True)
class Sound:
    """An undamaged dataset: what its store says, its notes, and its images."""

    told: tuple[Any, ...]
    notes: int
    items: Items


class Campaign:
    """Runs cases below `folder`; twins are forged once by `twin`, undamaged ones read once."""

    def __init__(self, folder: Path, twin: Callable[[str], Path], readers: list[str], seed: int):
        self.folder, self.twin, self.readers, self.seed = folder, twin, readers, seed
        self._sound: dict[str, Sound] = {}

    def run(self, number: int, reader: str = "", mutation: str = "") -> Case:
        """Make and judge one case; of this reader or mutation where one is named."""
        rng = np.random.default_rng((self.seed, number))
        place = self.folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if number % 5 == 0 and not reader and not mutation:
            name = list(OTHERS)[number // 5 % len(OTHERS)]
            what, work = OTHERS[name](place, rng)
            return Case(number, name, what, "", *judged(work))
        if number % 5 < 3 and not reader and not mutation:
            reader, mutation = self._of_text(rng)
        name = reader or self.readers[int(rng.integers(len(self.readers)))]
        shutil.copytree(self.twin(name), place / "data" / name, copy_function=os.link)
        root = place / "data" / name
        files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != MARK)
        endings = sorted({p.suffix for p in files})  # first: tables are few among images
        fitting = {end: [m for m in FILES if m.fits(Path(f"x{end}"))] for end in endings}
        if mutation:
            fitting = {e: [m for m in found if m.name == mutation] for e, found in fitting.items()}
            endings = [end for end in endings if fitting[end]]
        ending = endings[int(rng.integers(len(endings)))]
        files = [p for p in files if p.suffix == ending]
        path = files[int(rng.integers(len(files)))]
        change = fitting[ending][int(rng.integers(len(fitting[ending])))]
        change.apply(path, rng)
        inside = str(path.relative_to(root))
        result, reason = judged(lambda: self._compare(name, root, change, inside))
        left = [p.name for p in (place / "stores").glob("*") if p.suffix != ".lock"]
        left += [p.name for p in (place / "stores").glob(".*.partial")]
        if result != "hang" and left and (result in ("refused", "traceback") or len(left) > 1):
            result, reason = "partial", f"{left} after {result}: {reason}"
        return Case(number, name, change.name, inside, result, reason)

    def _of_text(self, rng: np.random.Generator) -> tuple[str, str]:
        """A mutation of tables, annotations or arrays, which are few among images, and a reader."""
        known = {end: [r for r in names if r in self.readers] for end, names in KEEPERS.items()}
        known = {end: names for end, names in known.items() if names}
        if not known:
            return "", ""
        ending = list(known)[int(rng.integers(len(known)))]
        found = [m.name for m in FILES if ending in m.suffixes]
        reader = known[ending][int(rng.integers(len(known[ending])))]
        return reader, found[int(rng.integers(len(found)))]

    def _prepared(self, name: str, root: Path, stores: Path) -> tuple[DatasetReader, Sound]:
        reader = dataset(name, root, stores)
        notes, store = prepare(reader, workers=1).notes, reader.store
        counted = notes.total("skipped") + notes.total("warning")
        return reader, Sound((store.digest, store.tasks, store.mpp), counted, {})

    def _compare(self, name: str, root: Path, mutation: Mutation, inside: str) -> tuple[str, str]:
        if name not in self._sound:
            reader, told = self._prepared(name, self.twin(name), self.folder / "sound")
            self._sound[name] = replace(told, items=items_of(reader))
        sound = self._sound[name]
        reader, damaged = self._prepared(name, root, self.folder / "case" / "stores")
        if damaged.told == sound.told:
            return "same", ""
        tasks = damaged.told[1] != sound.told[1]
        noted = damaged.notes - sound.notes
        difference = Difference(root, inside, sound.items, items_of(reader), tasks, noted)
        if noted > 0 and difference.size <= noted:
            return "noted", ""
        reason = reason_of(mutation.name, name, difference)
        return ("lawful", reason) if reason else ("differs", difference.told)


def twins_below(folder: Path) -> Callable[[str], Path]:
    """Twins forged where they are first asked for."""

    def twin(name: str) -> Path:
        reader = dataset(name, folder / name, folder / "unused")
        forge(reader, seed=0, images=IMAGES)
        return reader.root

    return twin


def table(cases: list[Case]) -> str:
    """Counts of classes by mutation."""
    classes = ["refused", "same", "noted", "lawful", *BAD]
    counts = Counter((case.mutation, case.result) for case in cases)
    lines = [f"{'':24}" + "".join(f"{name:>10}" for name in classes)]
    for mutation in [*sorted({case.mutation for case in cases}), "all"]:
        row = [
            sum(n for (of, name), n in counts.items() if name == c and mutation in (of, "all"))
            for c in classes
        ]
        lines.append(f"{mutation:24}" + "".join(f"{n or '':>10}" for n in row))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="repeat this one")
    parser.add_argument("--reader", default="", help="take this one")
    parser.add_argument("--mutation", default="", help="take this one")
    parser.add_argument("--twins", type=Path, help="keep the twins there for the next time")
    parser.add_argument("--log", type=Path, help="also write each case there, one JSON a line")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    numbers = range(options.first, options.first + options.cases)
    if options.case is not None:
        numbers = range(options.case, options.case + 1)
    cases = []
    if options.twins:
        options.twins.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.twins) as folder:  # links need the same disk
        twin = twins_below(options.twins or Path(folder) / "twins")
        campaign = Campaign(Path(folder), twin, list(READERS), options.seed)
        for number in numbers:
            cases.append(case := campaign.run(number, options.reader, options.mutation))
            if case.result in BAD or options.case is not None:
                print(case, flush=True)
            if options.log:
                with options.log.open("a") as file:
                    file.write(json.dumps(vars(case)) + "\n")
    print(table(cases))
    for reason, count in Counter(c.reason for c in cases if c.result == "lawful").items():
        print(f"{count:6} lawful: {reason}")
    return int(any(case.result in BAD for case in cases))


if __name__ == "__main__":
    sys.exit(main())
