"""Download of a public dataset: check disk space, fetch, verify and unpack.

Everything happens in `.downloads` below the dataset's folder, so that files are moved into place
by a rename, an interrupted download is resumed, and a partly unpacked archive never counts as
data.
"""

import filecmp
import logging
import shutil
from pathlib import Path

from filelock import FileLock
from rich.progress import Progress

from datamodules.core.atomic import write_json
from datamodules.core.disk_space import free_space, require_space, size_text
from datamodules.core.errors import ChecksumError, DatasetNotFoundError, DownloadError
from datamodules.core.progress import transfers
from datamodules.core.records import DOWNLOADS, Archive
from datamodules.download.archives import check, checksum, file_name, with_checksum
from datamodules.download.disk_space import (
    entries,
    is_placed_by_hand,
    mark_of,
    pending,
    space_needed,
)
from datamodules.download.extract import unpack
from datamodules.download.http_transfer import RetryPolicy, fetch
from datamodules.reader import DatasetReader
from datamodules.store.synthetic_mark import is_forged

log = logging.getLogger(__name__)


def download(dataset: DatasetReader, policy: RetryPolicy | None = None) -> list[Path]:
    """Download a dataset's archives, unpack them into its folder and return what lies there.

    Raises:
        DatasetNotFoundError: the data need a form or a login; names the steps and the layout.
        DiskError: it does not fit on the disk.
        DownloadError: a server that refuses, or an unsafe archive.
        ChecksumError: a file is not the published one.
    """
    root = dataset.root
    if is_forged(root):
        raise DownloadError(
            f"{dataset.name}: {root} holds synthetic data; remove that folder or set data.root to "
            "another one, so that the two never mix"
        )
    if is_placed_by_hand(dataset):
        log.info("%s: lies in %s already, nothing to download", dataset.name, root)
        return entries(root)
    if not dataset.archives:
        steps = dataset.obtain or f"get it from {dataset.homepage or 'its publisher'}"
        expected = ", ".join(dataset.layout) or "the publisher's files"
        raise DatasetNotFoundError(
            f"{dataset.name}: {dataset.title} cannot be downloaded by a program; "
            f"{steps.rstrip('.')}. Then {root} must hold: {expected}"
        )
    folder = root / DOWNLOADS
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if any(pending(dataset)):
            _check_space(dataset, folder)
            with transfers() as bars:
                for archive in pending(dataset):
                    _install(dataset, archive, folder, bars, policy or RetryPolicy())
        dataset.check_layout()
    return entries(root)


def _check_space(dataset: DatasetReader, folder: Path) -> None:
    """Log what will be downloaded, and refuse it where the disk is too small."""
    needed = space_needed(dataset)
    unknown = f" and {needed.unknown} of unknown size" if needed.unknown else ""
    log.info(
        "%s: %d files to download, %s%s; needs about %s of disk in %s, %s are free",
        *(dataset.name, needed.files, size_text(needed.fetch), unknown),
        *(size_text(needed.raw), dataset.root, size_text(free_space(folder))),
    )
    require_space(dataset.root, needed.raw, "make room or set data.root to a larger disk")


def _install(
    dataset: DatasetReader, archive: Archive, folder: Path, bars: Progress, policy: RetryPolicy
) -> None:
    """Download, verify, unpack and move one archive into place; its mark is written last."""
    path = folder / file_name(archive.url)
    known = with_checksum(archive)
    bar = bars.add_task(path.name, total=known.bytes or None)
    if path.exists():
        check(path, known)
    else:
        fetch(known, path, lambda c, t: bars.update(bar, completed=c, total=t or None), policy)
    digest = checksum(path, "sha256")
    if not known.checksum:
        log.warning("%s: no checksum is published; this file has sha256:%s", path.name, digest)
    staging = folder / f"{path.name}.unpacked"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    unpack(path, staging)
    if archive.content:
        (content,) = staging.iterdir()
        try:
            check(content, Archive(archive.url, archive.content))
        except ChecksumError:
            path.unlink()
            raise
    names = sorted(entry.name for entry in staging.iterdir())
    _move_content(staging, dataset.root)
    mark = {
        "url": archive.url,
        "published": archive.checksum or archive.content,
        "sha256": digest,
        "bytes": path.stat().st_size,
        "entries": names,
    }
    write_json(mark_of(dataset, archive), mark)
    path.unlink()


def _move_content(source: Path, target: Path) -> None:
    """Move a folder's content into another folder on the same disk, merging folders."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if not place.exists():
            entry.rename(place)
        elif entry.is_dir() and place.is_dir():
            _move_content(entry, place)
        elif entry.is_file() and place.is_file() and filecmp.cmp(entry, place, shallow=False):
            entry.unlink()
        else:
            raise DownloadError(
                f"{place}: lies there already and differs from the downloaded one; move it away "
                "and run the same command again"
            )
    source.rmdir()
