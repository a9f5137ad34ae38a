"""Tables in the terminal: datasets with their state, and the disk space that they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from datamodules.checks.findings import is_verified
from datamodules.core.disk_space import free_space, nearest, require_space, size_text
from datamodules.core.errors import StoreError
from datamodules.core.records import Task
from datamodules.display.cards import tasks_line
from datamodules.download.disk_space import SpaceNeeded, space_needed
from datamodules.reader import DatasetReader
from datamodules.store.attributes import read_attributes, tasks_from_json

WIDTH = 150  # columns of a table if the terminal reports fewer


def print_list(console: Console, datasets: Sequence[DatasetReader]) -> None:
    """Print one row per dataset."""
    headings = ("name", "tasks", "organs", "images", "µm/px", "licence")
    shown = Table(*headings, "present?", "prepared?", "verified?")
    for dataset in datasets:
        state, tasks = _state(dataset)
        mpp = dataset.native_mpp()
        shown.add_row(
            dataset.name,
            tasks_line(tasks),
            ", ".join(dataset.organs),
            f"{dataset.images:,}" if dataset.images else "",
            f"{mpp:g}" if mpp else "unknown",
            dataset.licence,
            "yes" if dataset.root.is_dir() else "",
            state,
            "yes" if is_verified(dataset) else "",
        )
    _print(console, shown)


def _state(dataset: DatasetReader) -> tuple[str, tuple[Task, ...]]:
    """Return what is known of a dataset's store, and its tasks."""
    if not dataset.store_path.exists():
        return "", dataset.tasks
    try:
        attributes = read_attributes(dataset.store_path)
    except StoreError:
        return "damaged", dataset.tasks
    return f"{attributes['count']:,} patches", tasks_from_json(attributes["tasks"])


def print_room(console: Console, datasets: Sequence[DatasetReader]) -> None:
    """Print the disk space that download and preparation need.

    Raises:
        DiskError: the downloads do not fit on the disk.
    """
    rooms = [space_needed(dataset) for dataset in datasets]
    shown = Table("dataset", "download", "raw files need about", "store needs up to")
    for room in rooms:
        sizes = (size_text(size) if size else "unknown" for size in (room.raw, room.store))
        shown.add_row(room.name, _download(room), *sizes)
    _print(console, shown)
    data = datasets[0].data
    root, stores_root = nearest(Path(data.root)), nearest(Path(data.stores))
    raw, stores = sum(room.raw for room in rooms), sum(room.store for room in rooms)
    free, free_stores = free_space(root), free_space(stores_root)
    console.print(
        f"disk space: about {size_text(raw)} of raw files in {data.root}, {size_text(free)} "
        f"free; up to {size_text(stores)} of stores in {data.stores}, {size_text(free_stores)} free"
    )
    downloads = sum(room.raw for room in rooms if not room.by_hand)
    remedy = "make room, name fewer datasets, or set data.root to a larger disk"
    require_space(Path(data.root), downloads, remedy)
    same_disk = root.stat().st_dev == stores_root.stat().st_dev
    if (raw if same_disk else 0) + stores > free_stores:
        console.print("warning: raw files and stores together may not fit")


def _download(room: SpaceNeeded) -> str:
    if room.by_hand:
        return "by hand"
    if not room.files:
        return "nothing"
    words = [size_text(room.fetch)] if room.unknown < room.files else []
    if room.unknown:
        words.append(f"{room.unknown} files of unknown size")
    return " and ".join(words)


def _print(console: Console, shown: Table) -> None:
    Console(file=console.file, width=max(console.width, WIDTH), markup=False).print(shown)
