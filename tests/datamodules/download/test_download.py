from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import ChecksumError, DatasetNotFoundError, DiskError, DownloadError
from datamodules.core.records import DOWNLOADS, Archive, Boxes, Task, TaskKind
from datamodules.download.archives import file_name, with_checksum
from datamodules.download.dataset import download
from datamodules.download.disk_space import space_needed
from datamodules.download.http_transfer import RetryPolicy
from datamodules.prepare import fingerprint
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store.synthetic_mark import MARK
from datamodules.store.tiling import View
from datamodules.store_size import store_bytes
from lightning_app.commands.dataset_tables import print_room
from tests.support.fake_server import Publisher

QUICK = RetryPolicy(attempts=3, wait=0.01, timeout=5)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    server = Publisher()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def dataset_of(root: Path, *archives: Archive, **facts: object) -> DatasetReader:
    attributes = {
        "title": "Published",
        "organs": ("colon",),
        "licence": "CC0",
        "folder": "published",
        "homepage": "https://example.org/published",
        "archives": archives,
        "layout": ("slides/*.png",),
        "tasks": (),
        **facts,
    }
    published = type("Published", (DatasetReader,), attributes)
    dataset: DatasetReader = published(DataConfig(root=str(root)))
    return dataset


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def noise(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


def md5(body: bytes) -> str:
    return f"md5:{hashlib.md5(body).hexdigest()}"


PACKED = zipped(**{"slides/a.png": noise(3_000_000), "slides/b.png": b"b", "README.md": b"text"})


def announced(url: str, body: bytes) -> Archive:
    return Archive(url, md5(body), len(body))


def test_archives_are_downloaded_verified_unpacked_and_marked(publisher, tmp_path):
    second = gzip.compress(b"plain content")
    dataset = dataset_of(
        tmp_path,
        announced(publisher.offer("images.zip", PACKED), PACKED),
        announced(publisher.offer("labels.csv.gz", second), second),
    )
    entries = download(dataset, policy=QUICK)
    assert [path.name for path in entries] == ["README.md", "labels.csv", "slides"]
    assert (dataset.root / "slides/a.png").read_bytes() == noise(3_000_000)
    assert (dataset.root / "labels.csv").read_bytes() == b"plain content"
    downloads = dataset.root / DOWNLOADS
    marks = [downloads / f"{name}.done.json" for name in ("images.zip", "labels.csv.gz")]
    assert [json.loads(mark.read_text())["sha256"] for mark in marks] == [
        hashlib.sha256(body).hexdigest() for body in (PACKED, second)
    ]
    assert set(downloads.iterdir()) == {
        downloads / "lock",
        *marks,
    }  # neither archives nor staging folders stay


def test_a_second_call_downloads_nothing(publisher, tmp_path):
    dataset = dataset_of(tmp_path, announced(publisher.offer("images.zip", PACKED), PACKED))
    download(dataset, policy=QUICK)
    before = fingerprint(dataset.root)
    assert [path.name for path in download(dataset, policy=QUICK)] == ["README.md", "slides"]
    assert len(publisher.asked) == 1
    assert fingerprint(dataset.root) == before


def test_only_removed_files_are_downloaded_again(publisher, tmp_path):
    other = zipped(**{"labels/a.txt": b"1"})
    dataset = dataset_of(
        tmp_path,
        announced(publisher.offer("images.zip", PACKED), PACKED),
        announced(publisher.offer("labels.zip", other), other),
    )
    download(dataset, policy=QUICK)
    shutil.rmtree(dataset.root / "labels")
    download(dataset, policy=QUICK)
    asked = sorted(path for path, _ in publisher.asked)
    assert asked == ["/images.zip", "/labels.zip", "/labels.zip"]
    assert (dataset.root / "labels/a.txt").read_bytes() == b"1"


def test_dropped_connections_are_resumed_where_they_stopped(publisher, tmp_path):
    url = publisher.offer("images.zip", PACKED, drop_after=[1_000_000, 1_200_000])
    dataset = dataset_of(tmp_path, announced(url, PACKED))
    download(dataset, policy=QUICK)
    starts = [int(asked.removeprefix("bytes=").rstrip("-") or 0) for _, asked in publisher.asked]
    assert len(starts) == 3
    assert 900_000 <= starts[1] <= 1_000_000
    assert 2_000_000 <= starts[2] <= 2_200_000


def test_without_progress_the_download_gives_up_and_keeps_the_partial_file(publisher, tmp_path):
    url = publisher.offer("images.zip", PACKED, drop_after=[500_000, 0, 0, 0, 0])
    dataset = dataset_of(tmp_path, announced(url, PACKED))
    with pytest.raises(
        DownloadError, match=r"gave up after 3 attempts.*run the same command again"
    ):
        download(dataset, policy=QUICK)
    part = dataset.root / DOWNLOADS / "images.zip.part"
    kept = part.stat().st_size
    assert 400_000 < kept <= 500_000
    publisher.files["/images.zip"].drop_after = []
    download(dataset, policy=QUICK)
    assert publisher.asked[-1][1] == f"bytes={kept}-"
    assert (dataset.root / "slides/b.png").read_bytes() == b"b"


def test_a_body_shorter_than_its_content_length_is_an_error(publisher, tmp_path):
    url = publisher.offer("images.zip", PACKED, extra_length=10)
    with pytest.raises(DownloadError, match="gave up"):
        download(dataset_of(tmp_path, Archive(url)), policy=QUICK)
    with pytest.raises(ChecksumError, match=f"offers {len(PACKED) + 10} bytes"):
        download(dataset_of(tmp_path / "announced", announced(url, PACKED)), policy=QUICK)


@pytest.mark.parametrize("etag", ["same", ""], ids=["with If-Range", "without ETag"])
def test_a_file_that_changed_on_the_server_is_downloaded_from_the_start(publisher, tmp_path, etag):
    old = zipped(**{"slides/a.png": noise(2_000_000)[::-1]})
    tag = {"etag": ""} if not etag else {}
    url = publisher.offer("images.zip", old, drop_after=[1_500_000, 0, 0, 0], **tag)
    dataset = dataset_of(tmp_path, Archive(url, md5(PACKED)))
    with pytest.raises(DownloadError, match="gave up"):
        download(dataset, policy=QUICK)
    publisher.offer("images.zip", PACKED, **tag)
    download(dataset, policy=QUICK)
    assert (dataset.root / "slides/a.png").read_bytes() == noise(3_000_000)


def test_joined_parts_of_two_versions_are_rejected(publisher, tmp_path):
    twin = bytes(reversed(PACKED))  # same length and no ETag: only the checksum can tell
    url = publisher.offer("images.zip", twin, drop_after=[1_500_000, 0, 0, 0], etag="")
    dataset = dataset_of(tmp_path, announced(url, PACKED))
    with pytest.raises(DownloadError, match="gave up"):
        download(dataset, policy=QUICK)
    publisher.offer("images.zip", PACKED, etag="")
    download(dataset, policy=QUICK)
    assert [bool(asked) for _, asked in publisher.asked[-2:]] == [True, False]
    assert (dataset.root / "slides/a.png").read_bytes() == noise(3_000_000)


def test_a_server_that_ignores_ranges_is_read_from_the_start(publisher, tmp_path):
    url = publisher.offer("images.zip", PACKED, drop_after=[2_000_000], ranges=False)
    dataset = dataset_of(tmp_path, announced(url, PACKED))
    download(dataset, policy=QUICK)
    assert (dataset.root / "slides/a.png").read_bytes() == noise(3_000_000)


def test_a_range_that_starts_elsewhere_is_not_appended(publisher, tmp_path):
    url = publisher.offer("images.zip", PACKED, drop_after=[2_000_000], shift=7)
    dataset = dataset_of(tmp_path, Archive(url))
    download(dataset, policy=QUICK)
    assert (dataset.root / "slides/a.png").read_bytes() == noise(3_000_000)


def test_a_busy_server_is_retried_and_a_refusal_is_not(publisher, tmp_path):
    url = publisher.offer("images.zip", PACKED, failures=[503, 429])
    download(dataset_of(tmp_path / "busy", announced(url, PACKED)), policy=QUICK)
    assert len(publisher.asked) == 3
    refused = publisher.offer("gone.zip", PACKED, failures=[403] * 9)
    with pytest.raises(DownloadError, match="403"):
        download(dataset_of(tmp_path / "gone", Archive(refused)), policy=QUICK)
    assert len(publisher.asked) == 4


@pytest.mark.parametrize(
    "behaviour", [{"kind": "text/html; charset=utf-8"}, {}], ids=["content type", "content"]
)
def test_a_web_page_instead_of_an_archive_is_refused(publisher, tmp_path, behaviour):
    url = publisher.offer("images.zip", b"\n <!DOCTYPE html><html>log in</html>", **behaviour)
    dataset = dataset_of(tmp_path, Archive(url))
    with pytest.raises(DownloadError, match="web page"):
        download(dataset, policy=QUICK)
    assert not (dataset.root / DOWNLOADS / "images.zip").exists()


def test_a_file_with_a_wrong_checksum_is_refused_and_removed(publisher, tmp_path):
    url = publisher.offer("images.zip", PACKED)
    wrong = Archive(url, md5(b"something else"), len(PACKED))
    dataset = dataset_of(tmp_path, wrong)
    with pytest.raises(ChecksumError, match=r"md5 is .*expected"):
        download(dataset, policy=QUICK)
    assert not list((dataset.root / DOWNLOADS).glob("images.zip*"))
    assert not (dataset.root / "slides").exists()


def test_too_small_a_disk_is_reported_before_any_download(publisher, tmp_path, caplog):
    url = publisher.offer("images.zip", PACKED)
    huge = Archive(url, bytes=10**18)
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(DiskError, match=r"needs about 2000000000\.0 GB.*set data\.root"),
    ):
        download(dataset_of(tmp_path, huge), policy=QUICK)
    assert not publisher.asked
    assert "1 files to download, 1000000000.0 GB" in caplog.text


def test_the_disk_space_of_all_datasets_is_printed_before_any_download(publisher, tmp_path):
    images = {"images": 1_000, "extent": (64, 64), "patch_size": 32, "view": View.WHOLE}
    task = (Task("area", TaskKind.SEGMENTATION, ("a", "b")),)
    url = publisher.offer("images.zip", PACKED)
    fetched = dataset_of(tmp_path / "data", Archive(url), tasks=task, **images)
    by_hand = dataset_of(tmp_path / "data", folder="other", obtain="fill in a form", disk_gb=2)
    output = io.StringIO()
    print_room(Console(file=output, soft_wrap=True), [fetched, by_hand])
    first, second = (line for line in output.getvalue().splitlines() if "\u2502" in line)
    assert [cell.strip() for cell in first.split("\u2502")[2:5]] == ["3.0 MB", "6.0 MB", "4.1 MB"]
    assert [cell.strip() for cell in second.split("\u2502")[2:4]] == ["by hand", "2.0 GB"]
    assert f"about 2.0 GB of raw files in {tmp_path}" in output.getvalue()
    assert not publisher.asked

    download(fetched, policy=QUICK)
    assert space_needed(fetched).raw == space_needed(fetched).files == 0
    huge = dataset_of(tmp_path / "data", Archive(url, bytes=10**18), folder="huge")
    with pytest.raises(DiskError, match="name fewer datasets"):
        print_room(Console(file=output), [fetched, huge])


@pytest.mark.parametrize("name", ["glas", "monuseg", "tnbc", "nct_crc", "bach"])
def test_the_estimated_store_size_equals_that_of_images_of_the_usual_size(name, tmp_path):
    dataset = build(name, DatasetConfig(), DataConfig(root=str(tmp_path), stores=str(tmp_path)))
    width, height = dataset.extent
    targets = {
        task.name: np.zeros((height, width), np.uint8)
        if task.kind is TaskKind.SEGMENTATION
        else Boxes()
        for task in dataset.tasks
    }
    blank = np.zeros((height, width, 3), np.uint8)
    patches = dataset.tiler(dataset.tasks).cut(blank, targets, dataset.mpp)
    masks = sum(task.kind is TaskKind.SEGMENTATION for task in dataset.tasks)
    each = len(patches) * dataset.side**2 * (3 + masks)
    assert store_bytes(dataset) == each * dataset.images


def test_the_content_of_a_gz_archive_is_checked_where_its_checksum_is_published(
    publisher, tmp_path
):
    plain = b"labels" * 1000
    url = publisher.offer("labels.h5.gz", gzip.compress(plain))
    facts = {"layout": ("labels.h5",)}
    wrong = dataset_of(tmp_path, Archive(url, content=md5(b"others")), **facts)
    with pytest.raises(ChecksumError, match=r"labels\.h5.*md5 is"):
        download(wrong, policy=QUICK)
    assert not (wrong.root / "labels.h5").exists()
    assert not (wrong.root / DOWNLOADS / "labels.h5.gz").exists()
    right = dataset_of(tmp_path, Archive(url, content=md5(plain)), **facts)
    download(right, policy=QUICK)
    assert (right.root / "labels.h5").read_bytes() == plain


def test_data_behind_a_form_are_explained_step_by_step(tmp_path):
    dataset = dataset_of(tmp_path, obtain="fill in the form at example.org")
    with pytest.raises(DatasetNotFoundError) as caught:
        download(dataset)
    message = str(caught.value)
    assert "fill in the form at example.org" in message
    assert f"{dataset.root} must hold: slides/*.png" in message
    assert not dataset.root.exists()


def test_existing_data_are_not_downloaded(publisher, tmp_path):
    dataset = dataset_of(tmp_path, Archive(publisher.offer("images.zip", PACKED)))
    (dataset.root / "slides").mkdir(parents=True)
    (dataset.root / "slides/local.png").write_bytes(b"local")
    assert [path.name for path in download(dataset)] == ["slides"]
    assert not publisher.asked


def test_an_empty_folder_does_not_count_as_data_without_a_required_layout(publisher, tmp_path):
    archive = Archive(publisher.offer("images.zip", PACKED))
    dataset = dataset_of(tmp_path, archive, layout=())
    dataset.root.mkdir()
    assert [path.name for path in download(dataset, policy=QUICK)] == ["README.md", "slides"]


def test_real_data_never_mix_with_synthetic_ones(publisher, tmp_path):
    dataset = dataset_of(tmp_path, Archive(publisher.offer("images.zip", PACKED)))
    dataset.root.mkdir()
    (dataset.root / MARK).write_text("{}")
    with pytest.raises(DownloadError, match="synthetic"):
        download(dataset)


def test_another_file_of_the_same_name_is_not_overwritten(publisher, tmp_path):
    dataset = dataset_of(tmp_path, Archive(publisher.offer("images.zip", PACKED)))
    dataset.root.mkdir()
    (dataset.root / "README.md").write_text("local")
    with pytest.raises(DownloadError, match=r"README\.md: lies there already"):
        download(dataset, policy=QUICK)
    assert (dataset.root / "README.md").read_text() == "local"


def test_an_archive_of_another_layout_is_an_error(publisher, tmp_path):
    other = zipped(**{"pictures/a.png": b"a"})
    dataset = dataset_of(tmp_path, announced(publisher.offer("images.zip", other), other))
    with pytest.raises(DatasetNotFoundError, match="slides"):
        download(dataset, policy=QUICK)


KILLED = """
import sys
sys.path.insert(0, {repository!r})
from pathlib import Path
from datamodules.core.records import Archive
from datamodules.download.dataset import download
from tests.datamodules.download.test_download import dataset_of
download(dataset_of(Path({root!r}), Archive({url!r})))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_a_killed_download_is_resumed(publisher, tmp_path, repository, how):
    url = publisher.offer("images.zip", PACKED, pause=0.05)
    code = KILLED.format(repository=str(repository), root=str(tmp_path), url=url)
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL, env=os.environ
    )
    dataset = dataset_of(tmp_path, announced(url, PACKED))
    part = dataset.root / DOWNLOADS / "images.zip.part"
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 200_000) and time.monotonic() < until:
        time.sleep(0.01)
    child.send_signal(how)
    assert child.wait(30) != 0
    kept = part.stat().st_size
    assert 200_000 < kept < len(PACKED)
    publisher.files["/images.zip"].pause = 0
    download(dataset, policy=QUICK)
    assert publisher.asked[-1][1] == f"bytes={kept}-"
    assert (dataset.root / "slides/a.png").read_bytes() == noise(3_000_000)


def test_a_file_that_is_not_an_archive_is_copied(publisher, tmp_path):
    table = zipped(**{"xl/sheet.xml": b"<x/>"})
    images = zipped(**{"slides/a.png": b"a"})
    dataset = dataset_of(
        tmp_path,
        Archive(publisher.offer("labels.xlsx", table)),
        Archive(publisher.offer("images.zip", images)),
    )
    download(dataset, policy=QUICK)
    assert (dataset.root / "labels.xlsx").read_bytes() == table


def test_a_missing_checksum_is_read_from_the_repositorys_record(publisher, tmp_path):
    listed = [{"key": "images.zip", "checksum": md5(PACKED), "size": len(PACKED)}]
    publisher.offer("api/records/12", json.dumps({"files": listed}).encode())
    url = publisher.offer("records/12/files/images.zip", PACKED)
    dataset = dataset_of(tmp_path, Archive(url))
    assert with_checksum(Archive(url)) == announced(url, PACKED)
    assert with_checksum(Archive(url, "md5:0")) == Archive(url, "md5:0")
    download(dataset, policy=QUICK)
    publisher.asked.clear()
    download(dataset, policy=QUICK)
    assert not publisher.asked


def test_a_file_that_differs_from_its_record_is_refused(publisher, tmp_path):
    listed = [{"key": "images.zip", "checksum": md5(b"else"), "size": len(PACKED)}]
    publisher.offer("api/records/12", json.dumps({"files": listed}).encode())
    url = publisher.offer("records/12/files/images.zip", PACKED)
    with pytest.raises(ChecksumError, match=r"md5 is"):
        download(dataset_of(tmp_path, Archive(url)), policy=QUICK)


@pytest.mark.parametrize("record", [b"no json", b'{"files": []}', b'{"files": 3}', b"[]", None])
def test_an_unreadable_record_is_logged_and_the_file_downloaded(
    publisher, tmp_path, record, caplog
):
    if record is not None:
        publisher.offer("api/records/12", record)
    dataset = dataset_of(tmp_path, Archive(publisher.offer("records/12/files/images.zip", PACKED)))
    download(dataset, policy=QUICK)
    assert "its record names no checksum" in caplog.text
    assert f"sha256:{hashlib.sha256(PACKED).hexdigest()}" in caplog.text


def test_an_unreachable_server_is_reported_with_the_cause(tmp_path, publisher):
    url = publisher.offer("images.zip", PACKED)
    publisher.close()
    with pytest.raises(
        DownloadError, match=r"gave up after 3 attempts \(no connection \(.*refused"
    ):
        download(dataset_of(tmp_path, Archive(url)), policy=QUICK)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.org/records/1/files/NCT%20CRC.zip?download=1", "NCT CRC.zip"),
        ("https://a.org/api/records/1/files/x.zip/content", "x.zip"),
        ("https://a.org/files/123", "123"),
        ("https://a.org", "file"),
        ("https://a.org/..%2F..%2Fetc", "_.._etc"),
    ],
)
def test_a_file_name_is_derived_from_its_address(url, name):
    assert file_name(url) == name


def test_a_tar_is_unpacked_from_the_server_to_its_place(publisher, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("./slides/a.png")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    body = buffer.getvalue()
    dataset = dataset_of(tmp_path, announced(publisher.offer("v1.tar.gz", body), body))
    download(dataset, policy=QUICK)
    assert (dataset.root / "slides/a.png").read_bytes() == b"abc"
