"""Archives of a dataset still to be downloaded, and the disk space that they and its store need."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.core.disk_space import nearest
from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.records import DOWNLOADS, Archive
from datamodules.download.archives import announced_bytes, name_of
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


def space_needed(dataset: DatasetReader, ask: bool = True) -> SpaceNeeded:
    """Estimate what a dataset still needs.

    Servers are asked for sizes missing in its card, unless `ask` is false.
    """
    placed = is_placed_by_hand(dataset)
    awaited = [] if placed else list(pending(dataset))
    missing = list(filter(comes_by_itself, awaited))
    sizes = [announced_bytes(archive) if ask else archive.bytes for archive in missing]
    paths = [dataset.root / DOWNLOADS / name_of(archive) for archive in missing]
    received = sum(
        file.stat().st_size for path in paths for file in (path, part_of(path)) if file.exists()
    )
    # Images hardly compress, so content is as large as archives; the card may know better, and the
    # sum of the archives where it lists not each.
    all_missing = not placed and len(awaited) == len(dataset.archives)
    total = max(sum(sizes), round(dataset.download_gb * 1e9) if all_missing and missing else 0)
    content = max(total, round(dataset.disk_gb * 1e9) if all_missing else 0)
    return SpaceNeeded(
        name=dataset.name,
        files=len(missing),
        unknown=sizes.count(0),
        fetch=max(0, total - received),
        raw=max(0, total + content - received),  # both exist while an archive is unpacked
        store=0 if is_prepared(dataset) else store_bytes(dataset),
        by_hand=not placed and (not dataset.archives or len(missing) < len(awaited)),
    )


def total_space(
    datasets: Sequence[DatasetReader], ask: bool = True
) -> tuple[list[SpaceNeeded], dict[Path, int]]:
    """Estimate what datasets need together; those that share a folder need its raw files once.

    Returns:
        What each one needs, and the bytes by folder: `data.root` and `data.stores`, or the first
        alone where both lie on one disk.
    """
    rooms: list[SpaceNeeded] = []
    seen: set[Path] = set()
    for dataset in datasets:
        room = space_needed(dataset, ask)
        again = dataset.root in seen
        rooms.append(replace(room, files=0, unknown=0, fetch=0, raw=0) if again else room)
        seen.add(dataset.root)
    if not datasets:
        return rooms, {}
    root, stores = Path(datasets[0].data.root), Path(datasets[0].data.stores)
    raw, prepared = sum(room.raw for room in rooms), sum(room.store for room in rooms)
    if nearest(root).stat().st_dev == nearest(stores).stat().st_dev:
        return rooms, {root: raw + prepared}
    return rooms, {root: raw, stores: prepared}


def comes_by_itself(archive: Archive) -> bool:
    """Whether a program can fetch an archive."""
    return bool(archive.url or archive.mirrors)


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
    return dataset.root / DOWNLOADS / f"{name_of(archive)}.done.json"


def pending(dataset: DatasetReader) -> Iterator[Archive]:
    """Archives that are not in place yet, or that the card lists with another checksum."""
    for archive in dataset.archives:
        mark = mark_of(dataset, archive)
        done = json.loads(mark.read_text()) if mark.is_file() else {}
        same = done.get("url") == archive.url and _is_of(archive, done)
        if not same or not all((dataset.root / name).exists() for name in done["entries"]):
            yield archive


def _is_of(archive: Archive, mark: Mapping[str, Any]) -> bool:
    """Whether a mark is of the file that the card lists, which may state a checksum only since."""
    published = mark.get("published")
    if archive.checksum.startswith("sha256:"):
        return archive.checksum == f"sha256:{mark.get('sha256')}"
    return published in ("", archive.checksum) or published == archive.content != ""
