"""Tables of datasets on the terminal: what there is, and the disk space that the rest takes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from datamodules.core.errors import DownloadError
from datamodules.display.cards import table
from datamodules.download.disk_space import Room, room_for, size_text
from datamodules.reader import DatasetReader

WIDTH = 150  # columns of a table where no terminal says how many there are


def print_list(console: Console, datasets: Sequence[DatasetReader]) -> None:
    """One line for each dataset."""
    headings = ("name", "tasks", "organs", "images", "um/px", "licence")
    shown = Table(*headings, "present?", "prepared?", "verified?")
    for row in table(datasets):
        shown.add_row(
            *(row.name, row.tasks, row.organs),
            f"{row.images:,}" if row.images else "",
            f"{row.mpp:g}" if row.mpp else "unknown",
            row.licence,
            "yes" if row.present else "",
            "" if row.patches is None else f"{row.patches:,} patches",
            "yes" if row.verified else "",
        )
    _print(console, shown)


def print_room(console: Console, datasets: Sequence[DatasetReader]) -> None:
    """Say the disk space that fetching and preparing takes, before anything is fetched.

    Raises:
        DownloadError: what is to be fetched does not fit on the disk.
    """
    rooms = [room_for(dataset) for dataset in datasets]
    shown = Table("dataset", "to fetch", "raw files take about", "store takes up to")
    for room in rooms:
        shown.add_row(room.name, _fetched(room), _told(room.raw), _told(room.store))
    _print(console, shown)
    data = datasets[0].data
    root, kept = _nearest(Path(data.root)), _nearest(Path(data.stores))
    raw, stores = sum(room.raw for room in rooms), sum(room.store for room in rooms)
    free, left = shutil.disk_usage(root).free, shutil.disk_usage(kept).free
    console.print(
        f"disk space: about {size_text(raw)} of raw files in {data.root}, {size_text(free)} are "
        f"free; up to {size_text(stores)} of stores in {data.stores}, {size_text(left)} are free"
    )
    fetched = sum(room.raw for room in rooms if not room.by_hand)
    if fetched > free:
        raise DownloadError(
            f"what is to be fetched needs {size_text(fetched)} in {data.root}, {size_text(free)} "
            "are free; make room, name fewer datasets, or set data.root to a larger disk"
        )
    if raw + stores > left if _same_disk(root, kept) else stores > left:
        console.print("warning: raw files and stores together may not fit")


def _fetched(room: Room) -> str:
    if room.by_hand:
        return "by hand"
    if not room.files:
        return "nothing"
    words = [size_text(room.fetch)] if room.unknown < room.files else []
    if room.unknown:
        words.append(f"{room.unknown} files of unknown size")
    return " and ".join(words)


def _told(size: int) -> str:
    return size_text(size) if size else "unknown"


def _nearest(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _print(console: Console, shown: Table) -> None:
    Console(file=console.file, width=max(console.width, WIDTH)).print(shown)
