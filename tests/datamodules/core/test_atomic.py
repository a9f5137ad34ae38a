"""Files and folders that are replaced whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from threading import Thread

import pandas as pd
import pytest

from datamodules.core.atomic import (
    atomic_folder,
    atomic_path,
    partial_path,
    write_bytes,
    write_json,
    write_table,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half_and_be_killed(path: Path, folder: bool) -> None:
    with (atomic_folder if folder else atomic_path)(path, unique=False) as partial:
        (partial / "half.txt" if folder else partial).write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def run_and_await_the_kill(path: Path, folder: bool) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=write_half_and_be_killed, args=(path, folder)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "scores.csv"
    for text in ("old", "new"):
        with atomic_path(path) as partial:
            partial.write_text(text)
            assert partial.parent == path.parent
            assert partial.name.startswith(".scores.csv.")
            assert partial.name.endswith(".partial")
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert names(path.parent) == ["scores.csv"]


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, unique, error):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path, unique) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["scores.csv"]


def test_a_block_that_writes_nothing_is_an_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_clears_up(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    run_and_await_the_kill(path, folder=False)
    assert path.read_text() == "old"
    assert partial_path(path).read_text() == "half"
    with atomic_path(path, unique=False) as partial:
        assert not partial.exists()
        partial.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["scores.csv"]


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    path = tmp_path / "scores.csv"
    texts = [str(digit) * 100_000 for digit in range(8)]
    threads = [Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert names(tmp_path) == ["scores.csv"]


def test_a_folder_appears_complete_in_place_of_an_empty_one(tmp_path):
    path = tmp_path / "hub"
    path.mkdir()
    with atomic_folder(path) as partial:
        (partial / "inner").mkdir()
        (partial / "inner/model.bin").write_text("weights")
        assert names(path) == []
    assert (path / "inner/model.bin").read_text() == "weights"
    assert names(tmp_path) == ["hub"]


def test_a_folder_that_holds_files_is_not_replaced(tmp_path):
    path = tmp_path / "hub"
    write_text(path / "kept.txt", "old")
    with pytest.raises(OSError, match="not empty"), atomic_folder(path) as partial:
        (partial / "new.txt").write_text("new")
    assert names(path) == ["kept.txt"]
    assert names(tmp_path) == ["hub"]


def test_an_exception_or_a_kill_leaves_no_folder(tmp_path):
    path = tmp_path / "forged"
    with pytest.raises(OSError, match="full"), atomic_folder(path) as partial:
        (partial / "half.txt").write_text("half")
        raise OSError("disk full")
    assert names(tmp_path) == []
    run_and_await_the_kill(path, folder=True)
    assert not path.exists()
    with atomic_folder(path, unique=False):
        pass
    assert names(path) == []
    assert names(tmp_path) == ["forged"]


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    for name in ("step1.ckpt", "step2.ckpt"):
        (tmp_path / name).write_text(name)
        with atomic_path(tmp_path / "last.ckpt") as link:
            link.symlink_to(name)
        assert (tmp_path / "last.ckpt").read_text() == name
    assert names(tmp_path) == ["last.ckpt", "step1.ckpt", "step2.ckpt"]
    assert (tmp_path / "step1.ckpt").read_text() == "step1.ckpt"


def test_each_format_is_written_as_it_is_read(tmp_path):
    write_bytes(tmp_path / "raw", b"\x00\xff")
    write_text(tmp_path / "text", "µm\n")
    write_json(tmp_path / "json", {"size": "5 µm", "rows": [1, 2]})
    table = pd.DataFrame({"value": [0.1 + 0.2, 1 / 3]})
    write_table(tmp_path / "table", table)
    assert (tmp_path / "raw").read_bytes() == b"\x00\xff"
    assert (tmp_path / "text").read_bytes() == "µm\n".encode()
    assert (tmp_path / "json").read_text(encoding="utf-8") == (
        '{\n  "size": "5 µm",\n  "rows": [\n    1,\n    2\n  ]\n}'
    )
    # pandas 3.0 reads numbers of 17 digits by a faster way, wrong in the last one.
    assert pd.read_csv(tmp_path / "table", float_precision="round_trip").equals(table)
