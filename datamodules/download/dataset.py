"""Getting a public dataset: said what it takes, fetched, checked, unpacked, marked complete.

Everything happens in `.downloads` below the dataset's folder, so that moving files to their
place is a rename, an interrupted call goes on where it stopped, and a half unpacked archive is
never mistaken for data.
"""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import nullcontext
from pathlib import Path

from filelock import FileLock
from rich.progress import Progress

from datamodules.core.atomic import write_json
from datamodules.core.errors import ChecksumError, DatasetNotFoundError, DownloadError
from datamodules.core.progress import transfers
from datamodules.core.records import DOWNLOADS, Archive
from datamodules.download.archives import check, checksum, file_name, with_checksum
from datamodules.download.disk_space import (
    entries,
    lies_there,
    mark_of,
    pending,
    room_for,
    size_text,
)
from datamodules.download.extract import unpack
from datamodules.download.http_transfer import Patience, fetch
from datamodules.reader import DatasetReader
from datamodules.store.synthetic_mark import is_forged

log = logging.getLogger(__name__)

COMPLETE = "complete.json"


def download(
    dataset: DatasetReader,
    progress: Progress | None = None,
    patience: Patience | None = None,
    keep_archives: bool = False,
) -> list[Path]:
    """Fetch a dataset's archives and unpack them into its folder.

    Args:
        dataset: which one; its files lie below `dataset.root` afterwards.
        progress: shows how far it is; one on the terminal's error stream where None.
        patience: how long to insist with a failing server.
        keep_archives: keep the archives in `.downloads` after they are unpacked.

    Returns:
        Files and folders of the data, directly below the dataset's folder.

    Raises:
        DatasetNotFoundError: the data need a form or a login; says the steps and the layout.
        DownloadError: no room, a refusing server, or an unsafe archive.
        ChecksumError: a file is not the published one.
    """
    root = dataset.root
    if is_forged(root):
        raise DownloadError(
            f"{dataset.name}: {root} holds synthetic data; remove that folder or set data.root to "
            "another one, so that the two never mix"
        )
    home = root / DOWNLOADS
    if lies_there(dataset):
        log.info("%s: lies in %s already, nothing to fetch", dataset.name, root)
        return entries(root)
    if not dataset.archives:
        raise DatasetNotFoundError(by_hand(dataset))
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "lock"):
        if not (home / COMPLETE).is_file() or any(pending(dataset)):
            (home / COMPLETE).unlink(missing_ok=True)
            _check_room(dataset, home)
            with nullcontext(progress) if progress else transfers() as bars:
                for archive in pending(dataset):
                    _bring(dataset, archive, home, bars, patience or Patience(), keep_archives)
        dataset.check_layout()
        marks = [json.loads(mark_of(dataset, a).read_text()) for a in dataset.archives]
        write_json(home / COMPLETE, marks)
    return entries(root)


def by_hand(dataset: DatasetReader) -> str:
    """How to get a dataset that no program may fetch, and where it must lie."""
    steps = dataset.obtain or f"get it from {dataset.homepage or 'its publisher'}"
    expected = ", ".join(dataset.layout) or "the publisher's files"
    return (
        f"{dataset.name}: {dataset.title} is not offered for download by a program; "
        f"{steps.rstrip('.')}. Then {dataset.root} must hold: {expected}"
    )


def _check_room(dataset: DatasetReader, home: Path) -> None:
    """Say what will be fetched and refuse it where the disk is too small."""
    room = room_for(dataset)
    free = shutil.disk_usage(home).free
    unknown = f" and {room.unknown} of unknown size" if room.unknown else ""
    log.info(
        "%s: %d files to fetch, %s%s; needs about %s of disk in %s, %s are free",
        *(dataset.name, room.files, size_text(room.fetch), unknown),
        *(size_text(room.raw), dataset.root, size_text(free)),
    )
    if room.raw > free:
        raise DownloadError(
            f"{dataset.name}: needs about {size_text(room.raw)} in {dataset.root}, "
            f"{size_text(free)} are free; make room or set data.root to a larger disk"
        )


def _bring(
    dataset: DatasetReader,
    archive: Archive,
    home: Path,
    bars: Progress,
    patience: Patience,
    keep: bool,
) -> None:
    """Fetch, check, unpack and move one archive; its own mark is written last."""
    path = home / file_name(archive.url)
    known = with_checksum(archive)
    bar = bars.add_task(path.name, total=known.bytes or None)
    if path.exists():
        check(path, known)
    else:
        fetch(known, path, lambda c, t: bars.update(bar, completed=c, total=t or None), patience)
    digest = checksum(path, "sha256")
    if not known.checksum:
        log.warning("%s: no checksum is published; what came has sha256:%s", path.name, digest)
    staging = home / f"{path.name}.unpacked"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    unpack(path, staging)
    if archive.content:
        _check_content(archive, path, staging)
    names = sorted(entry.name for entry in staging.iterdir())
    place(staging, dataset.root)
    staging.rmdir()
    done = {
        "url": archive.url,
        "published": archive.checksum or archive.content,
        "sha256": digest,
        "bytes": path.stat().st_size,
        "entries": names,
    }
    write_json(mark_of(dataset, archive), done)
    if not keep:
        path.unlink()


def _check_content(archive: Archive, path: Path, staging: Path) -> None:
    """Compare the file in a .gz archive with its checksum; another one goes, archive and all."""
    (content,) = staging.iterdir()
    try:
        check(content, Archive(archive.url, archive.content))
    except ChecksumError:
        path.unlink()
        raise


def place(source: Path, target: Path) -> None:
    """Move the content of a folder into another one on the same disk, merging folders.

    Raises:
        DownloadError: another file of that name lies there already; it is left alone.
    """
    for entry in sorted(source.iterdir()):
        wanted = target / entry.name
        if not wanted.exists():
            entry.rename(wanted)
        elif entry.is_dir() and wanted.is_dir():
            place(entry, wanted)
            entry.rmdir()
        elif entry.is_file() and wanted.is_file() and _same(entry, wanted):
            entry.unlink()
        else:
            raise DownloadError(
                f"{wanted}: lies there already and differs from the fetched one; move it away and "
                "run the same command again"
            )


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and checksum(one, "sha256") == checksum(
        other, "sha256"
    )
