"""Several sources of a file, several files at once, and archives fetched by hand."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from datamodules.config import DataConfig
from datamodules.core.errors import (
    ChecksumError,
    DatasetNotFoundError,
    DownloadError,
)
from datamodules.core.records import DOWNLOADS, Archive, HubFile
from datamodules.download.archives import name_of
from datamodules.download.dataset import download, install
from datamodules.download.disk_space import pending, space_needed, total_space
from datamodules.download.http_transfer import RetryPolicy, part_of
from datamodules.download.transfers import AT_ONCE, several
from datamodules.reader import DatasetReader
from datamodules.registry import public_names, reader
from datamodules.store.synthetic_mark import MARK
from lightning_app.cli import main
from tests.support.fake_server import Publisher

QUICK = RetryPolicy(attempts=2, wait=0.01, timeout=5)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ON_HUB = f"datasets/owner/copies/resolve/{COMMIT}/archives/images.zip"
PAGE = b"<!DOCTYPE html><html>this file moved</html>"


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


PIXELS = np.random.default_rng(1).bytes(2_000_000)
PACKED = zipped(**{"slides/a.png": PIXELS})
SHA256 = f"sha256:{hashlib.sha256(PACKED).hexdigest()}"


def published(root: Path, *archives: Archive, **facts: object) -> DatasetReader:
    attributes = {
        "title": "Published", "organs": ("colon",), "licence": "CC0", "folder": "published",
        "archives": archives, "layout": ("slides/*.png",), "tasks": (), **facts,
    }  # fmt: skip
    dataset: DatasetReader = type("Published", (DatasetReader,), attributes)(
        DataConfig(root=str(root))
    )
    return dataset


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A publisher and a hub; no token of this machine is sent."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    publisher, hub = Publisher(), Publisher()
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield publisher, hub
    publisher.close()
    hub.close()


def mirrored(url: str) -> Archive:
    copy = HubFile("owner/copies", COMMIT, "archives/images.zip")
    return Archive(url, SHA256, len(PACKED), name="images.zip", mirrors=(copy,))


def test_a_redirect_is_followed_and_resumed(servers, tmp_path):
    publisher, hub = servers
    store = hub.offer("blob", PACKED, drop_after=[1_000_000])
    url = publisher.offer("images.zip", b"", moved_to=store)
    dataset = published(tmp_path, Archive(url, SHA256))
    download(dataset, policy=QUICK)
    assert (dataset.root / "slides/a.png").read_bytes() == PIXELS
    assert hub.asked[-1] == ("/blob", f"bytes={hub.asked[-1][1][6:-1]}-")
    assert int(hub.asked[-1][1][6:-1]) > 900_000


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"failures": [404] * 9}, "404 Not Found; the file was moved or removed"),
        ({"failures": [403] * 9}, "403 Forbidden; the data need a login"),
        ({"failures": [503] * 9}, "gave up after 2 attempts"),
        ({"body": PAGE, "kind": "text/html"}, "sends a web page in the place of the file"),
        ({"body": PACKED[:-1]}, f"offers {len(PACKED) - 1} bytes, {len(PACKED)} were announced"),
        ({"body": PACKED[::-1]}, "sha256 is"),
        ({"drop_after": [1_000_000, 0, 0]}, "gave up after 2 attempts"),
    ],
    ids=["moved", "refused", "busy", "web page", "another size", "changed", "truncated"],
)
def test_the_hub_has_what_the_publisher_has_not(servers, tmp_path, caplog, behaviour, reason):
    publisher, hub = servers
    url = publisher.offer("images.zip", **{"body": PACKED, **behaviour})
    hub.offer(ON_HUB, PACKED)
    dataset = published(tmp_path, mirrored(url))
    download(dataset, policy=QUICK)
    assert (dataset.root / "slides/a.png").read_bytes() == PIXELS
    assert reason in caplog.text
    if "drop_after" in behaviour:  # what the publisher sent is continued
        assert int(hub.asked[0][1].removeprefix("bytes=").rstrip("-")) > 900_000


def test_when_no_source_has_a_file_each_reason_is_given(servers, tmp_path):
    publisher, hub = servers
    url = publisher.offer("images.zip", PAGE, kind="text/html")
    hub.offer(ON_HUB, PACKED, token="hf_secret")
    dataset = published(tmp_path, mirrored(url))
    with pytest.raises(DownloadError) as caught:
        download(dataset, policy=QUICK)
    text = str(caught.value)
    assert "images.zip: none of its 2 sources has it: (1) http" in text
    assert "a web page in the place of the file" in text
    assert f"(2) {hub.address}" in text
    page = f"{hub.address}/datasets/owner/copies"
    assert f"accept the terms on {page}, then run `hf auth login`" in text


def test_a_token_opens_a_gated_repository(servers, tmp_path, monkeypatch):
    publisher, hub = servers
    hub.offer(ON_HUB, PACKED, token="hf_secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    dataset = published(tmp_path, mirrored(f"{publisher.address}/gone.zip"))
    assert [path.name for path in download(dataset, policy=QUICK)] == ["slides"]


def test_files_are_fetched_together_but_not_too_many(servers, tmp_path):
    publisher, _ = servers
    archives = []
    for number in range(3 * AT_ONCE):
        body = zipped(**{f"slides/{number}.png": PIXELS[:300_000]})
        archives.append(Archive(publisher.offer(f"{number}.zip", body, pause=0.1)))
    dataset = published(tmp_path, *archives)
    download(dataset, policy=QUICK)
    assert len(list((dataset.root / "slides").iterdir())) == 3 * AT_ONCE
    # The server may still count a body or two that its client has received.
    assert 2 <= publisher.most_at_once <= AT_ONCE + 2


def test_a_file_that_fails_does_not_stop_the_others(servers, tmp_path):
    publisher, _ = servers
    good = publisher.offer("good.zip", PACKED)
    dataset = published(tmp_path, Archive(f"{publisher.address}/gone.zip"), Archive(good))
    with pytest.raises(DownloadError, match=r"gone\.zip: the server answers 404"):
        download(dataset, policy=QUICK)
    assert (dataset.root / "slides/a.png").is_file()
    assert [name_of(archive) for archive in pending(dataset)] == ["gone.zip"]


def test_an_interrupt_ends_running_downloads_and_keeps_what_they_brought(servers, tmp_path):
    publisher, _ = servers
    archive = Archive(publisher.offer("slow.zip", PACKED, pause=0.2))  # 6 seconds
    started, path = time.monotonic(), tmp_path / "slow.zip"
    with pytest.raises(KeyboardInterrupt), several(QUICK) as together:
        running = together.start(archive, path)
        while not part_of(path).exists() or not part_of(path).stat().st_size:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 3
    assert isinstance(running.exception(), DownloadError)
    assert 0 < part_of(path).stat().st_size < len(PACKED)


def test_content_without_a_folder_goes_into_a_named_one(servers, tmp_path):
    publisher, _ = servers
    url = publisher.offer("images.zip", zipped(**{"a.png": b"a", "b.png": b"b"}))
    dataset = published(tmp_path, Archive(url, into="slides"))
    assert [path.name for path in download(dataset, policy=QUICK)] == ["slides"]
    assert not list(pending(dataset))
    shutil.rmtree(dataset.root / "slides")
    assert len(list(pending(dataset))) == 1


def test_a_checksum_that_the_card_learns_later_costs_no_second_download(servers, tmp_path):
    publisher, _ = servers
    url = publisher.offer("images.zip", PACKED)
    dataset = published(tmp_path, Archive(url))
    download(dataset, policy=QUICK)
    for checksum, awaited in ((SHA256, 0), ("md5:" + "0" * 32, 0), ("sha256:" + "0" * 64, 1)):
        later = published(tmp_path, Archive(url, checksum))
        assert len(list(pending(later))) == awaited, checksum


def test_datasets_that_share_a_folder_need_its_files_once(tmp_path):
    archive = Archive("http://127.0.0.1:1/images.zip", bytes=1_000)
    twice = [published(tmp_path, archive), published(tmp_path, archive)]
    rooms, needed = total_space(twice, ask=False)
    assert [room.fetch for room in rooms] == [1_000, 0]
    assert needed == {tmp_path: 2_000}


# ---- archives fetched by hand -------------------------------------------------------------------


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    path = tmp_path / "Downloads" / "images.zip"
    path.parent.mkdir()
    path.write_bytes(PACKED)
    return path


def test_an_archive_fetched_by_hand_is_unpacked_from_where_it_lies(tmp_path, fetched):
    dataset = published(tmp_path / "data", obtain="sign in")
    assert [path.name for path in install(dataset, [fetched])] == ["slides"]
    assert fetched.is_file()
    assert not (dataset.root / DOWNLOADS).exists()
    assert [path.name for path in download(dataset)] == ["slides"]


def test_a_known_archive_is_checked_before_it_is_unpacked(tmp_path, fetched):
    known = Archive(checksum=SHA256, bytes=len(PACKED), name="images.zip")
    dataset = published(tmp_path / "data", known, obtain="sign in")
    assert space_needed(dataset).by_hand
    with pytest.raises(DatasetNotFoundError, match=r"sign in\. .*datasets unpack published FILE"):
        download(dataset)
    assert not dataset.root.exists()
    install(dataset, [fetched])
    assert not list(pending(dataset))
    assert json.loads(next((dataset.root / DOWNLOADS).glob("*.done.json")).read_text())["sha256"]

    fetched.write_bytes(PACKED[::-1])
    other = published(tmp_path / "other", known)
    with pytest.raises(ChecksumError, match="sha256 is"):
        install(other, [fetched])
    assert fetched.is_file()
    assert not other.root.exists()


def test_what_is_no_archive_of_the_dataset_is_explained(tmp_path, fetched):
    dataset = published(tmp_path / "data", layout=("masks/*.png",), obtain="sign in")
    with pytest.raises(DatasetNotFoundError, match=r"nothing matches 'masks/\*\.png'"):
        install(dataset, [fetched])
    with pytest.raises(DatasetNotFoundError, match=r"none\.zip: no such file"):
        install(dataset, [tmp_path / "none.zip"])
    fetched.write_bytes(PAGE)
    with pytest.raises(DownloadError, match=r"is no \.zip file by its content"):
        install(dataset, [fetched])
    unsafe = tmp_path / "unsafe.zip"
    unsafe.write_bytes(zipped(**{"../outside.png": b"x"}))
    with pytest.raises(DownloadError, match="outside its folder"):
        install(dataset, [unsafe])
    assert not (tmp_path / "outside.png").exists()
    (dataset.root / MARK).write_text("{}")
    with pytest.raises(DownloadError, match="synthetic"):
        install(dataset, [fetched])


def test_the_verb_unpacks_into_the_folder_of_the_named_dataset(tmp_path, capsys):
    archive = tmp_path / "grades.zip"
    archive.write_bytes(zipped(**{"Warwick QU Dataset (Released 2016_07_08)/Grade.csv": b"name"}))
    command = ["datasets", "unpack", "glas", str(archive), "--root", str(tmp_path / "data")]
    assert main(command) == 0
    assert (tmp_path / "data/glas").is_dir()
    assert "glas: " in capsys.readouterr().out
    assert main(["datasets", "unpack", "glas"]) == 2
    assert "name a dataset and the archives" in capsys.readouterr().err


def test_the_verb_downloads_several_datasets_and_reports_each(
    servers, tmp_path, monkeypatch, caplog, capsys
):
    publisher, _ = servers
    url = publisher.offer("stage1_train.zip", PACKED)
    monkeypatch.setattr(reader("dsb2018"), "archives", (Archive(url, into="stage1_train"),))
    monkeypatch.setattr(reader("tnbc"), "archives", (Archive(f"{publisher.address}/gone.zip"),))
    names = ["dsb2018", "tnbc", "glas"]
    assert main(["datasets", "download", *names, "--root", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert f"dsb2018: {tmp_path}/dsb2018/stage1_train" in shown.out
    assert "tnbc: " in shown.err
    assert "404" in shown.err
    assert "glas: " in shown.err


@pytest.mark.parametrize("name", public_names())
def test_every_dataset_states_how_it_is_fetched(name):
    facts = reader(name)
    by_hand = [archive for archive in facts.archives if not (archive.url or archive.mirrors)]
    assert (facts.access == "automatic") == bool(facts.archives and not by_hand)
    assert facts.access == "automatic" or "http" in facts.obtain, "exact steps with a link"
    for archive in facts.archives:
        assert name_of(archive) != "file"
        assert not archive.mirrors or archive.checksum, "copies must be the published file"
        for mirror in archive.mirrors:
            assert isinstance(mirror, str) or len(mirror.revision) == 40, "a commit"
