"""Download of a public dataset: check disk space, fetch, verify and unpack.

Everything happens in `.downloads` below the dataset's folder, so that files are moved into place
by a rename, an interrupted download is resumed, and a partly unpacked archive never counts as
data. Archives that the user fetched by hand are unpacked the same way, from wherever they lie.
"""

import filecmp
import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from datamodules.core.atomic import write_json
from datamodules.core.disk_space import free_space, require_space, size_text
from datamodules.core.errors import ChecksumError, DatasetNotFoundError, DownloadError, UserError
from datamodules.core.records import DOWNLOADS, Archive
from datamodules.download.archives import check, checksum, name_of, with_checksum
from datamodules.download.disk_space import (
    comes_by_itself,
    entries,
    is_placed_by_hand,
    mark_of,
    pending,
    space_needed,
)
from datamodules.download.extract import unpack
from datamodules.download.http_transfer import RetryPolicy
from datamodules.download.transfers import Transfers, several
from datamodules.reader import DatasetReader
from datamodules.store.synthetic_mark import is_forged

log = logging.getLogger(__name__)

_REMEDY = "make room or set data.root to a larger disk"


def download(
    dataset: DatasetReader, policy: RetryPolicy | None = None, together: Transfers | None = None
) -> list[Path]:
    """Download a dataset's archives, unpack them into its folder and return what lies there.

    Several files are fetched at once; with `together` they share the limit of other datasets.

    Raises:
        DatasetNotFoundError: a part needs a form or a login; names the steps and the layout.
        DiskError: it does not fit on the disk.
        DownloadError: no source has a file, or an unsafe archive.
        ChecksumError: a file is not the published one.
    """
    root = dataset.root
    _refuse_forged(dataset)
    if is_placed_by_hand(dataset):
        log.info("%s: lies in %s already, nothing to download", dataset.name, root)
        return entries(root)
    if any(map(comes_by_itself, dataset.archives)):
        folder = root / DOWNLOADS
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            missing = [archive for archive in pending(dataset) if comes_by_itself(archive)]
            if missing:
                _check_space(dataset, folder)
                if together:
                    _fetch_all(dataset, missing, together)
                else:
                    with several(policy) as own:
                        _fetch_all(dataset, missing, own)
    if not dataset.archives or any(pending(dataset)):
        raise DatasetNotFoundError(_by_hand(dataset))
    dataset.check_layout()
    return entries(root)


def install(dataset: DatasetReader, files: Sequence[Path]) -> list[Path]:
    """Unpack archives that were fetched by hand; they may lie anywhere and stay there.

    A file with the name of a published archive must be that archive.

    Raises:
        DatasetNotFoundError: a file does not exist, or more is needed than these files hold.
        ChecksumError: a file is not the published one.
        DownloadError: the archive is damaged or unsafe.
        DiskError: it does not fit on the disk.
    """
    _refuse_forged(dataset)
    known = {name_of(archive): archive for archive in dataset.archives}
    for path in files:
        if not path.is_file():
            raise DatasetNotFoundError(f"{path}: no such file; name the archive that you fetched")
        check(path, known.get(path.name, Archive()))
    folder = dataset.root / DOWNLOADS
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        for path in files:
            require_space(dataset.root, path.stat().st_size, _REMEDY)
            archive = known.get(path.name, Archive(name=path.name))
            _place(dataset, archive, path, known=path.name in known)
    if {entry.name for entry in folder.iterdir()} <= {"lock"}:  # nothing to mark
        shutil.rmtree(folder)
    dataset.check_layout()
    return entries(dataset.root)


def _refuse_forged(dataset: DatasetReader) -> None:
    if is_forged(dataset.root):
        raise DownloadError(
            f"{dataset.name}: {dataset.root} holds synthetic data; remove that folder or set "
            "data.root to another one, so that the two never mix"
        )


def _by_hand(dataset: DatasetReader) -> str:
    """What to do about a dataset that a program cannot fetch."""
    steps = dataset.obtain or f"get it from {dataset.homepage or 'its publisher'}"
    expected = ", ".join(dataset.layout) or "the publisher's files"
    return (
        f"{dataset.name}: {dataset.title} cannot be downloaded by a program; {steps.rstrip('.')}. "
        f"`python -m lightning_app datasets unpack {dataset.folder} FILE` takes archives from "
        f"wherever they lie. Then {dataset.root} must hold: {expected}"
    )


def _check_space(dataset: DatasetReader, folder: Path) -> None:
    """Log what will be downloaded, and refuse it where the disk is too small."""
    needed = space_needed(dataset)
    unknown = f" and {needed.unknown} of unknown size" if needed.unknown else ""
    log.info(
        "%s: %d files to download, %s%s; needs about %s of disk in %s, %s are free",
        *(dataset.name, needed.files, size_text(needed.fetch), unknown),
        *(size_text(needed.raw), dataset.root, size_text(free_space(folder))),
    )
    require_space(dataset.root, needed.raw, _REMEDY)


def _fetch_all(dataset: DatasetReader, missing: list[Archive], transfers: Transfers) -> None:
    """Fetch archives together, and place each as soon as it is there.

    A failure does not stop the other files; the first one is raised when they are done.
    """
    folder, failures = dataset.root / DOWNLOADS, list[UserError]()
    running: dict[Future[None], Archive] = {}
    for archive in missing:
        path = folder / name_of(archive)
        running[transfers.start(with_checksum(archive), path)] = archive
    while running:
        for done in wait(running, return_when=FIRST_COMPLETED).done:
            archive = running.pop(done)
            path = folder / name_of(archive)
            try:
                done.result()
                with transfers.unpacking:
                    _place(dataset, archive, path)
                path.unlink()
            except UserError as error:
                failures.append(error)
    if failures:
        for failure in failures[1:]:
            log.error("%s", failure)
        raise failures[0]


def _place(dataset: DatasetReader, archive: Archive, path: Path, known: bool = True) -> None:
    """Unpack an archive and move its content into place; its mark is written last."""
    digest, folder = checksum(path, "sha256"), dataset.root / DOWNLOADS
    if not archive.checksum:
        log.warning("%s: the card has no checksum; this file has sha256:%s", path.name, digest)
    staging = folder / f"{path.name}.unpacked"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        unpack(path, staging)
        if archive.content:
            (content,) = staging.iterdir()
            check(content, replace(archive, checksum=archive.content, bytes=0))
    except (DownloadError, ChecksumError) as error:
        if isinstance(error, ChecksumError) and path.parent == folder:
            path.unlink()
        raise
    into = dataset.root / archive.into
    names = sorted(f"{archive.into}/{entry.name}".lstrip("/") for entry in staging.iterdir())
    into.mkdir(parents=True, exist_ok=True)
    _move_content(staging, into)
    mark = {
        "url": archive.url,
        "published": archive.checksum or archive.content,
        "sha256": digest,
        "bytes": path.stat().st_size,
        "entries": names,
    }
    if known:
        write_json(mark_of(dataset, archive), mark)


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
