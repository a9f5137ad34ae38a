from __future__ import annotations

import gzip
import io
import shutil
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from datamodules.core.errors import DownloadError
from datamodules.download.extract import Limits, unpack


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "outer" / "target"
    folder.mkdir(parents=True)
    return folder


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def write_zip(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


EVIL = ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "C:/evil", "\\evil"]


@pytest.mark.parametrize("name", EVIL)
def test_a_zip_member_never_leaves_its_folder(tmp_path, target, name):
    archive = write_zip(tmp_path / "a.zip", [("good", b"1"), (name, b"evil")])
    with pytest.raises(DownloadError, match="outside its folder"):
        unpack(archive, target)
    assert files_below(target.parent) == {"target/good": b"1"}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_member_never_leaves_its_folder(tmp_path, target, name, mode):
    suffix = ".tar.gz" if mode == "w:gz" else ".tar"
    archive = write_tar(tmp_path / f"a{suffix}", [(tar_member(name), b"evil")], mode)
    with pytest.raises(DownloadError, match="outside its folder"):
        unpack(archive, target)
    assert files_below(target.parent) == {}


@pytest.mark.parametrize(
    "member",
    [
        tar_member("link", tarfile.SYMTYPE, "/etc"),
        tar_member("link", tarfile.LNKTYPE, "../../etc/passwd"),
        tar_member("null", tarfile.CHRTYPE),
        tar_member("disk", tarfile.BLKTYPE),
        tar_member("pipe", tarfile.FIFOTYPE),
        tar_member("sparse", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda member: member.name,
)
def test_a_tar_with_anything_but_files_and_folders_is_refused(tmp_path, target, member):
    archive = write_tar(tmp_path / "a.tar.gz", [(member, b""), (tar_member("link/passwd"), b"x")])
    with pytest.raises(DownloadError, match=f"'{member.name}' is a link or a device"):
        unpack(archive, target)
    assert files_below(target) == {}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_with_anything_but_files_and_folders_is_refused(tmp_path, target, kind):
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    archive = write_zip(tmp_path / "a.zip", [(info, b"/etc/passwd")])
    with pytest.raises(DownloadError, match="'link' is a link or a device"):
        unpack(archive, target)
    assert files_below(target) == {}


def bombs(tmp_path: Path) -> dict[str, Path]:
    zeros = bytes(8 << 20)
    plain = tmp_path / "bomb.npy.gz"
    plain.write_bytes(gzip.compress(zeros))
    return {
        "zip": write_zip(tmp_path / "bomb.zip", [("zeros", zeros)]),
        "tar.gz": write_tar(tmp_path / "bomb.tar.gz", [(tar_member("zeros"), zeros)]),
        "gz": plain,
    }


@pytest.mark.parametrize("form", ["zip", "tar.gz", "gz"])
@pytest.mark.parametrize(
    "limits",
    [Limits(ratio=100, free=1 << 20), Limits(bytes=4 << 20)],
    ids=["ratio", "size"],
)
def test_an_archive_bomb_is_refused_within_its_limits(tmp_path, target, form, limits):
    with pytest.raises(DownloadError, match="archive bomb"):
        unpack(bombs(tmp_path)[form], target, limits)
    assert sum(len(content) for content in files_below(target).values()) <= 4 << 20


@pytest.mark.parametrize("form", ["zip", "tar.gz", "gz"])
def test_a_small_highly_compressed_archive_is_no_bomb(tmp_path, target, form):
    unpack(bombs(tmp_path)[form], target)
    assert [len(content) for content in files_below(target).values()] == [8 << 20]


def test_a_zip_with_false_sizes_writes_no_more_than_announced(tmp_path, target):
    archive = write_zip(tmp_path / "a.zip", [("zeros", bytes(1 << 20))])
    body = archive.read_bytes()
    actual, false = (1 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")
    assert body.count(actual) == 2
    archive.write_bytes(body.replace(actual, false))
    with pytest.raises(DownloadError, match="damaged"):
        unpack(archive, target)
    assert sum(map(len, files_below(target).values())) <= 100


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_too_many_files_are_refused(tmp_path, target, form):
    archive = (
        write_zip(tmp_path / "a.zip", [(f"{i}", b"") for i in range(11)])
        if form == "zip"
        else write_tar(tmp_path / "a.tar.gz", [(tar_member(f"{i}"), b"") for i in range(11)])
    )
    with pytest.raises(DownloadError, match="more than 10 files"):
        unpack(archive, target, Limits(files=10))


def test_a_huge_tar_header_is_refused_without_reading_it(tmp_path, target):
    header = tar_member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    archive = write_tar(tmp_path / "a.tar.gz", [(header, bytes(64 << 20))])
    tracemalloc.start()
    try:
        with pytest.raises(DownloadError, match="damaged"):
            unpack(archive, target)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_zip_larger_than_the_disk_is_refused_before_it_is_written(tmp_path, target):
    members = shutil.disk_usage(target).free // 0xFFFFFFFE + 1
    archive = write_zip(tmp_path / "a.zip", [(f"{i}", b"x" * 99) for i in range(members)])
    actual, false = (99).to_bytes(4, "little"), 0xFFFFFFFE.to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(actual, false))
    with pytest.raises(DownloadError, match=r"bytes, .* are free in .*set data.root"):
        unpack(archive, target, Limits(bytes=1 << 62, ratio=1e12))
    assert not list(target.iterdir())


@pytest.mark.parametrize("form", ["zip", "tar.gz", "gz"])
def test_a_truncated_archive_is_reported_as_damaged(tmp_path, target, form):
    archive = bombs(tmp_path)[form]
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DownloadError, match=r"damaged"):
        unpack(archive, target)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.gz", "a.tgz", "a.tar"])
def test_a_file_with_the_suffix_but_not_the_content_of_an_archive_is_refused(
    tmp_path, target, name
):
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(DownloadError, match="by its content"):
        unpack(tmp_path / name, target)


def test_a_compressed_file_without_a_suffix_is_copied(tmp_path, target):
    body = gzip.compress(b"content")
    (tmp_path / "labels").write_bytes(body)
    unpack(tmp_path / "labels", target)
    assert files_below(target) == {"labels": body}


def test_a_tar_member_of_negative_size_is_refused(tmp_path, target):
    info = tar_member("Thumbs.db")
    info.pax_headers = {"size": "-1536"}
    archive = write_tar(tmp_path / "a.tar", [(info, b"1")], "w")
    with pytest.raises(DownloadError, match="damaged"):
        unpack(archive, target)


def test_an_unsupported_format_is_refused(tmp_path, target):
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(DownloadError, match="by hand"):
        unpack(tmp_path / "a.7z", target)


def test_an_encrypted_zip_is_refused(tmp_path, target):
    archive = write_zip(tmp_path / "a.zip", [("a", b"1")])
    body = bytearray(archive.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(mark) + at] |= 1
    archive.write_bytes(bytes(body))
    with pytest.raises(DownloadError, match="encrypted"):
        unpack(archive, target)


def test_two_members_of_the_same_name_are_refused(tmp_path, target):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = write_zip(tmp_path / "a.zip", [("a", b"1"), ("a", b"2")])
    with pytest.raises(DownloadError, match="occurs twice"):
        unpack(archive, target)
    nested = write_zip(tmp_path / "b.zip", [("b", b"1"), ("b/c", b"2")])
    with pytest.raises(DownloadError, match="occurs twice"):
        unpack(nested, target)


@pytest.mark.parametrize("form", ["zip", "tar.gz", "tar"])
def test_folders_are_kept_and_files_of_file_managers_are_not(tmp_path, target, form):
    names = ["top/a b/c.png", "top/.DS_Store", "__MACOSX/top/._c.png", "top/Thumbs.db", "./d"]
    if form == "zip":
        archive = write_zip(tmp_path / "a.zip", [("top/", b""), *((name, b"1") for name in names)])
    else:
        members = [(tar_member(name), b"1") for name in names]
        folders = [(tar_member(name, tarfile.DIRTYPE), b"") for name in (".", "top")]
        mode = "w" if form == "tar" else "w:gz"
        archive = write_tar(tmp_path / f"a.{form}", [*folders, *members], mode)
    unpack(archive, target)
    assert files_below(target) == {"top/a b/c.png": b"1", "d": b"1"}


def test_modes_of_an_archive_have_no_effect(tmp_path, target):
    info = tar_member("tool")
    info.mode = 0o6777
    unpack(write_tar(tmp_path / "a.tar.gz", [(info, b"#!")]), target)
    assert not (target / "tool").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
@pytest.mark.parametrize("damage", ["header", "content", "end"])
def test_a_damaged_tar_is_refused_instead_of_ending_early(
    tmp_path: Path, ending: str, damage: str
) -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for number in range(8):
            info = tarfile.TarInfo(f"{number}.bin")
            info.size = 512
            tar.addfile(info, io.BytesIO(bytes([number]) * 512))
    content = bytearray(held.getvalue())
    if damage == "header":
        content[4 * 1024 + 3] ^= 1  # in the name of the fifth member
    if damage == "end":
        del content[5 * 1024 :]  # cut before the sixth header
    packed = bytes(content)
    if ending == ".tar.gz":
        zipped = bytearray(gzip.compress(packed, compresslevel=0))
        if damage == "content":
            zipped[3 * 1024 + 700] ^= 1
        packed = bytes(zipped)
    elif damage == "content":
        pytest.skip("a plain tar has no checksum of its contents")
    path, target = tmp_path / f"a{ending}", tmp_path / "out"
    path.write_bytes(packed)
    target.mkdir()
    with pytest.raises(DownloadError, match="damaged"):
        unpack(path, target)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_of_any_compression_is_refused(
    tmp_path: Path, target: Path, method: int
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("labels.csv", bytes(range(256)) * 40)
    sound = path.read_bytes()
    for place in range(52, 70):  # within the compressed content
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0xFF]) + sound[place + 1 :])
        with pytest.raises(DownloadError, match="damaged"):
            unpack(path, target)
        shutil.rmtree(target)
        target.mkdir()
