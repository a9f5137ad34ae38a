"""Where a file can be fetched: its publisher's address, then copies elsewhere, tried in turn."""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.core.errors import ChecksumError, DownloadError
from datamodules.core.records import Archive, HubFile
from datamodules.download.archives import name_of
from datamodules.download.http_transfer import Report, RetryPolicy, fetch_from

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """An address, and the headers to send to it."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


def addresses(archive: Archive) -> Iterator[Address]:
    """The addresses of a file in the order in which they are tried."""
    if archive.url:
        yield Address(archive.url)
    for mirror in archive.mirrors:
        yield _on_hub(mirror) if isinstance(mirror, HubFile) else Address(mirror)


def _on_hub(file: HubFile) -> Address:
    """The address of a file on the hub, with the token of `hf auth login` if there is one."""
    from huggingface_hub import get_token, hf_hub_url  # slow to import

    endpoint = os.environ.get("HF_ENDPOINT") or None  # the library reads it at import only
    where = {"repo_type": "dataset", "revision": file.revision, "endpoint": endpoint}
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Address(hf_hub_url(file.repository, file.path, **where), headers)


def fetch(archive: Archive, path: Path, report: Report, policy: RetryPolicy) -> None:
    """Download a file from the first source that has it; `path` appears when it is complete.

    What one source sent of a file with a published checksum is continued from the next.

    Raises:
        DownloadError: no source has it; the reason of each is given.
        ChecksumError: the only source sends another file.
        DiskError: it cannot be written.
    """
    failures: list[DownloadError | ChecksumError] = []
    for address in addresses(archive):
        try:
            fetch_from(address.url, address.headers, archive, path, report, policy)
        except (DownloadError, ChecksumError) as error:
            failures.append(error)
            log.warning("%s", error)
        else:
            return
    if len(failures) == 1:
        raise failures[0]
    reasons = "; ".join(f"({number}) {error}" for number, error in enumerate(failures, 1))
    raise DownloadError(
        f"{name_of(archive)}: none of its {len(failures)} sources has it: {reasons}"
    )
