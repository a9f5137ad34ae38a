"""What of datasets is still to be fetched, and the disk space that they and their stores take."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.records import DOWNLOADS, Archive, TaskKind
from datamodules.download.archives import announced_bytes, file_name
from datamodules.download.partial_file import Partial
from datamodules.prepare import is_prepared
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View


@dataclass(frozen=True)
class Room:
    """What it takes to have a dataset and its store, beyond what is there already.

    Attributes:
        name: the dataset's name in the run.
        files: archives still to be fetched.
        unknown: how many of them have a size that nobody tells; they count as nothing.
        fetch: bytes still to be fetched.
        raw: bytes of disk that its files take below `data.root`, about; 0 where not known.
        store: bytes that its store takes at most, estimated; 0 where it is written already.
        by_hand: whether it is missing and must be fetched by hand.
    """

    name: str
    files: int
    unknown: int
    fetch: int
    raw: int
    store: int
    by_hand: bool


def room_for(dataset: DatasetReader) -> Room:
    """What a dataset still takes; servers are asked for the sizes that its card does not tell."""
    there = lies_there(dataset)
    missing = [] if there else list(pending(dataset))
    sizes = [announced_bytes(archive) for archive in missing]
    home = dataset.root / DOWNLOADS
    all_missing = not there and len(missing) == len(dataset.archives)
    # Images hardly compress, so that content is as large as archives; the card knows better.
    content = max(sum(sizes), round(dataset.disk_gb * 1e9) if all_missing else 0)
    come = sum(_here(home / file_name(archive.url)) for archive in missing)
    return Room(
        name=dataset.name,
        files=len(missing),
        unknown=sizes.count(0),
        fetch=max(0, sum(sizes) - come),
        raw=max(0, sum(sizes) + content - come),  # side by side while an archive is unpacked
        store=0 if is_prepared(dataset) else store_bytes(dataset),
        by_hand=not there and not dataset.archives,
    )


def store_bytes(dataset: DatasetReader) -> int:
    """Size of a dataset's store for its settings, from the published number and size of images.

    An upper estimate: mitosis readers leave out most tiles without any object. 0 where the card
    does not tell what is needed, as for own data.
    """
    tiler, (width, height) = dataset.tiler(dataset.tasks), dataset.extent
    scale = dataset.native_mpp() / tiler.mpp if dataset.native_mpp() and tiler.mpp else 1.0
    tiles = 1
    if tiler.view is View.TILE:
        tiles = math.prod(math.ceil(round(px * scale) / tiler.side) for px in (width, height))
    masks = sum(task.kind is TaskKind.SEGMENTATION for task in dataset.tasks)
    return dataset.images * tiles * tiler.side**2 * (3 + masks)


def lies_there(dataset: DatasetReader) -> bool:
    """Whether a dataset's files were put in place by hand."""
    if (dataset.root / DOWNLOADS).exists():
        return False  # a download's own marks say what is there
    try:
        dataset.check_layout()
    except DatasetNotFoundError:
        return False
    return bool(entries(dataset.root))  # some layouts demand no particular file


def entries(root: Path) -> list[Path]:
    """Files and folders of the data, directly below the dataset's folder."""
    return sorted(path for path in root.iterdir() if path.name != DOWNLOADS)


def mark_of(dataset: DatasetReader, archive: Archive) -> Path:
    """The file that says that an archive is in place, written last."""
    return dataset.root / DOWNLOADS / f"{file_name(archive.url)}.done.json"


def pending(dataset: DatasetReader) -> Iterator[Archive]:
    """Archives that are not in place yet, or that the card names with another checksum."""
    for archive in dataset.archives:
        mark = mark_of(dataset, archive)
        done = json.loads(mark.read_text()) if mark.is_file() else {}
        checksum = archive.checksum or archive.content
        same = (done.get("url"), done.get("published")) == (archive.url, checksum)
        if not same or not all((dataset.root / name).exists() for name in done["entries"]):
            yield archive


def size_text(size: int) -> str:
    """A number of bytes for a person."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _here(path: Path) -> int:
    """Bytes of a file that have come so far."""
    return path.stat().st_size if path.exists() else len(Partial(path))
