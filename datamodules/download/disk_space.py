"""Archives of a dataset still to be downloaded, and the disk space that they and its store need."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.records import DOWNLOADS, Archive
from datamodules.download.archives import announced_bytes, file_name
from datamodules.download.http_transfer import part_of
from datamodules.prepare import is_prepared
from datamodules.reader import DatasetReader
from datamodules.store_size import store_bytes


@dataclass(frozen=True)
class SpaceNeeded:
    """What a dataset and its store still need, beyond the files that exist."""

    name: str  # in the run
    files: int  # archives to download
    unknown: int  # how many of them have no known size; they count as 0 bytes
    fetch: int  # bytes to download
    raw: int  # estimated bytes of disk below `data.root`; 0 where unknown
    store: int  # upper bound of the bytes of its store; 0 where it exists
    by_hand: bool  # it is missing and must be obtained by hand


def space_needed(dataset: DatasetReader) -> SpaceNeeded:
    """Estimate what a dataset still needs; servers are asked for sizes missing in its card."""
    placed = is_placed_by_hand(dataset)
    missing = [] if placed else list(pending(dataset))
    sizes = [announced_bytes(archive) for archive in missing]
    paths = [dataset.root / DOWNLOADS / file_name(archive.url) for archive in missing]
    received = sum(
        file.stat().st_size for path in paths for file in (path, part_of(path)) if file.exists()
    )
    # Images hardly compress, so content is as large as archives; the card may know better.
    all_missing = not placed and len(missing) == len(dataset.archives)
    content = max(sum(sizes), round(dataset.disk_gb * 1e9) if all_missing else 0)
    return SpaceNeeded(
        name=dataset.name,
        files=len(missing),
        unknown=sizes.count(0),
        fetch=max(0, sum(sizes) - received),
        raw=max(0, sum(sizes) + content - received),  # both exist while an archive is unpacked
        store=0 if is_prepared(dataset) else store_bytes(dataset),
        by_hand=not placed and not dataset.archives,
    )


def is_placed_by_hand(dataset: DatasetReader) -> bool:
    """Return whether the user put the dataset's files in place."""
    if (dataset.root / DOWNLOADS).exists():
        return False  # a download is described by its marks
    try:
        dataset.check_layout()
    except DatasetNotFoundError:
        return False
    return bool(entries(dataset.root))  # some layouts require no particular file


def entries(root: Path) -> list[Path]:
    """Files and folders of the data, directly below the dataset's folder."""
    return sorted(path for path in root.iterdir() if path.name != DOWNLOADS)


def mark_of(dataset: DatasetReader, archive: Archive) -> Path:
    """The file that marks an archive as unpacked and in place, written last."""
    return dataset.root / DOWNLOADS / f"{file_name(archive.url)}.done.json"


def pending(dataset: DatasetReader) -> Iterator[Archive]:
    """Archives that are not in place yet, or that the card lists with another checksum."""
    for archive in dataset.archives:
        mark = mark_of(dataset, archive)
        done = json.loads(mark.read_text()) if mark.is_file() else {}
        checksum = archive.checksum or archive.content
        same = (done.get("url"), done.get("published")) == (archive.url, checksum)
        if not same or not all((dataset.root / name).exists() for name in done["entries"]):
            yield archive
