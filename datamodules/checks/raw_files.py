"""Comparison of a store with what the raw files of its dataset give now."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from functools import partial

import numpy as np

from datamodules.checks.findings import Level, Report
from datamodules.core.errors import UserError
from datamodules.core.notes import Notes, collecting
from datamodules.core.progress import Work
from datamodules.core.records import Record, Task
from datamodules.prepare import fingerprint, load
from datamodules.reader import DatasetReader
from datamodules.store.content import target_bytes
from datamodules.store.parallel import in_order
from datamodules.store.reader import Store
from datamodules.store.tiling import Patch, Tiler

REWRITE = "delete the store and run `python -m lightning_app datasets prepare`"

_Prints = dict[str, bytes]  # digests of the parts of a patch (pixels, split, a task, ...)


def check_raw_files(
    dataset: DatasetReader, store: Store | None, report: Report, workers: int
) -> None:
    """Read all raw images; compare pixels, targets, split, group and place of every patch."""
    root = dataset.root
    try:
        dataset.check_layout()
        tasks = dataset.tasks_in(root)
    except UserError as error:
        level = Level.INFO if store and not root.is_dir() else Level.ERROR
        report.add(level, "layout", root, str(error))
        return
    comparison = Comparison(dataset, store, tasks, report) if store else None
    work = partial(_try_all, tiler=dataset.tiler(tasks), mpp=dataset.native_mpp())
    complete, name = False, f"reading the images of {dataset.name}"
    with collecting() as notes:
        results = in_order(work, dataset.read(), workers)
        try:
            with closing(results), Work(name, "patches", len(store) if store else None) as progress:
                for record, (prints, problem, noted) in results:
                    report.records += 1
                    notes.merge(noted)
                    if problem:
                        report.add(Level.ERROR, "raw image does not fit", record.source, problem)
                    if comparison:
                        comparison.add(record.source, None if problem else prints)
                    progress.advance(len(prints))
            complete = True
        except UserError as error:
            report.add(Level.ERROR, "reader", root, f"reading stops here: {error}")
    add_notes(notes, report)
    if comparison and complete:
        comparison.finish()


def add_notes(notes: Notes, report: Report, when: str = "") -> None:
    """Add one warning for each reason for which something was skipped or odd."""
    for (kind, reason), count in notes.counts.items():
        examples = notes.examples[kind, reason]
        more = f" and {count - len(examples):,} more" if count > len(examples) else ""
        verb = "skipped: " if kind == "skipped" else ""
        report.add(
            Level.WARNING, f"{kind} {reason}", ", ".join(examples) + more, verb + reason + when
        )


def _try_all(
    records: list[Record], tiler: Tiler, mpp: float
) -> list[tuple[list[_Prints], str, Notes]]:
    """Return the digests of each record's patches, its problem, and its notes."""
    results: list[tuple[list[_Prints], str, Notes]] = []
    for record in records:
        with collecting() as notes:
            try:
                patches = load(record, tiler, mpp)
                own = record.split, record.group
                results.append(([_prints_of(*own, p, tiler.tasks) for p in patches], "", notes))
            except UserError as error:
                results.append(([], str(error), notes))
    return results


def _prints_of(split: str, group: str, patch: Patch, tasks: Sequence[Task]) -> _Prints:
    parts = {
        "split": [split.encode()],
        "group": [group.encode()],
        "place in its image": [np.asarray((patch.x, patch.y), np.int64).tobytes()],
        "pixels": [patch.image.tobytes()],
        **{f"target '{t.name}'": target_bytes(t, patch.targets[t.name]) for t in tasks},
    }
    return {
        name: hashlib.blake2b(b"|".join(of), digest_size=8).digest() for name, of in parts.items()
    }


class Comparison:
    """Compares what raw files give with the rows of a store, record by record.

    A difference is an error, or a warning where the raw files changed since the store was written.
    """

    def __init__(
        self, dataset: DatasetReader, store: Store, tasks: Sequence[Task], report: Report
    ) -> None:
        self.store = store
        self.report = report
        self.level = Level.ERROR
        if store.attributes.get("fingerprint") != fingerprint(dataset.root):
            self.level = Level.WARNING
            what = f"the files in {dataset.root} changed since it was written; prepare it again"
            report.add(Level.WARNING, "fingerprint", store.path, what)
        numbers = store.source_numbers
        self._order = np.argsort(numbers, kind="stable")
        self._sorted = numbers[self._order]
        self._left = {name: number for number, name in enumerate(store.source_names)}
        self._same_tasks = store.tasks == tuple(tasks)
        if not self._same_tasks:
            self._tell("tasks", store.path, "its tasks are not those of the raw files")

    def add(self, source: str, prints: list[_Prints] | None) -> None:
        """Compare the patches of one record; None where it could not be read."""
        number = self._left.pop(source, None)
        if prints is None or not self._same_tasks:
            return
        if number is None:
            if prints:
                self._tell("image missing", source, "is not in the store")
            return
        first, last = np.searchsorted(self._sorted, [number, number + 1])
        rows = np.sort(self._order[first:last])
        if len(rows) != len(prints):
            what = f"gives {len(prints)} patches, the store holds {len(rows)}"
            self._tell("count", source, what)
            return
        for row, now in zip(rows.tolist(), prints, strict=True):
            differs = [name for name, value in self._stored(row).items() if now[name] != value]
            if differs:
                what = f"{', '.join(differs)}: the store holds another than the raw files give"
                self._tell(f"{', '.join(differs)} differ", f"{source} (row {row})", what)

    def finish(self) -> None:
        """Report the images of the store of which no record was read."""
        for source in self._left if self._same_tasks else ():
            self._tell("image gone", source, "is in the store, but not among the raw files")

    def _stored(self, row: int) -> _Prints:
        store = self.store
        x, y = store.corner(row)
        patch = Patch(store.images([row])[0], store.targets_of([row])[0], x, y, store.mpp)
        return _prints_of(store.split_name(row), store.group_name(row), patch, store.tasks)

    def _tell(self, kind: str, where: object, what: str) -> None:
        self.report.add(self.level, f"store and raw files: {kind}", where, f"{what}; {REWRITE}")
