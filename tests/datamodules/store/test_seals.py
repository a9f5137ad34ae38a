"""Whatever changes in a store, by hand or by a flipped bit, is one line where it is opened."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datamodules.core.errors import StoreError
from datamodules.store.attributes import SEAL, TABLES_SEAL, read_attributes
from datamodules.store.reader import Store
from lightning_app.cli import main
from tests.support.small_stores import small_store

COUNT, SIDE = 12, 16


def changed(path: Path, change: Callable[[h5py.File], None]) -> Path:
    small_store(path, COUNT, SIDE)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def assert_one_line(path: Path, *words: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (path.name, "datasets prepare", *words):
        assert word in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "other"),
        ("synthetic", False),
        ("mpp", 0.25),
        ("settings", "{}  "),
        ("count", COUNT - 1),
        ("digest", "0" * 64),
        ("notes", '[{"kind": "skipped", "reason": "r", "count": 1, "examples": []}]'),
        ("licence", "CC0"),
    ],
)
def test_a_changed_or_added_attribute_is_found_wherever_a_store_is_opened(tmp_path, name, value):
    path = changed(tmp_path / "a.h5", lambda file: file.attrs.__setitem__(name, value))
    assert_one_line(path, "attributes are not what was written")
    with pytest.raises(StoreError, match="seal differs"):
        read_attributes(path)


def test_a_changed_class_name_is_found(tmp_path):
    def rename(file: h5py.File) -> None:
        file.attrs["tasks"] = file.attrs["tasks"].replace(b"mitosis", b"mitoses")

    assert_one_line(changed(tmp_path / "a.h5", rename), "seal differs")


@pytest.mark.parametrize(
    "name",
    ["xy", "split", "group", "source", "targets/kind", "targets/signs", "boxes/objects/labels"],
)
def test_a_changed_table_is_found(tmp_path, name):
    def swap(file: h5py.File) -> None:
        values = file[name][:]
        file[name][...] = values[::-1].copy()
        assert not np.array_equal(values, file[name][:])

    assert_one_line(changed(tmp_path / "a.h5", swap), "tables are not what was written")


def test_a_renamed_group_is_found(tmp_path):
    path = changed(tmp_path / "a.h5", lambda file: file["groups"].__setitem__(0, "patient 9"))
    assert_one_line(path, "tables are not what was written")


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("side", "16"),
        ("mpp", float("nan")),
        ("mpp", b"0.5"),
        ("tasks", "[{"),
        ("tasks", '[{"name": "x", "kind": "no kind", "classes": []}]'),
        ("tasks", 3),
        ("count", 0),
        ("data_end", "far"),
        ("compressed", 2.5),
        ("notes", "{}}"),
        ("digest", None),
        ("synthetic", None),
    ],
)
def test_attributes_of_a_wrong_type_or_none_are_one_line(tmp_path, name, value, older):
    def change(file: h5py.File) -> None:
        if older:
            del file.attrs[SEAL], file.attrs[TABLES_SEAL]
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value

    assert_one_line(changed(tmp_path / "a.h5", change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("split", 7),
        ("group", -2),
        ("source", 999),
        ("offsets/images", 10**12),
        ("boxes/objects/offsets", 10**6),
    ],
)
def test_tables_of_an_older_store_that_contradict_each_other_are_one_line(tmp_path, name, value):
    def change(file: h5py.File) -> None:
        del file.attrs[SEAL], file.attrs[TABLES_SEAL]
        values = file[name][:].astype(np.int64)
        values[-1] = value
        del file[name]
        file[name] = values

    assert_one_line(changed(tmp_path / "a.h5", change), "contradict each other")


@pytest.mark.parametrize("gone", ["split", "sources", "xy", "offsets", "targets/kind", "boxes"])
def test_a_missing_table_is_one_line(tmp_path, gone):
    assert_one_line(changed(tmp_path / "a.h5", lambda file: file.__delitem__(gone)))


def everything(path: Path) -> str:
    store, rows = Store(path), range(COUNT)
    parts: list[Any] = [store.attributes, store.group_names, store.sources(rows)]
    parts += [store.images(rows).tobytes(), store.split.tolist(), store.group.tolist()]
    parts += [[store.corner(row) for row in rows]]
    for targets in store.targets_of(rows):
        boxes = targets.pop("objects")
        parts += [boxes.xyxy.tolist(), boxes.labels.tolist(), targets["area"].tobytes()]
        parts += [targets["kind"], targets["score"], targets["signs"].tolist()]
    return str(parts)


def read_damaged(path: Path, positions: list[int], results: Any) -> None:
    """Flip one byte after the other and tell how each damaged store reads."""
    whole, hurt = path.read_bytes(), path.with_name("hurt.h5")
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 + position % 255
        hurt.write_bytes(damaged)
        results.put((position, "crash"))
        try:
            results.put((position, everything(hurt)))
        except StoreError as error:
            results.put((position, "one line" if "\n" not in str(error) else str(error)))


def test_a_flipped_byte_anywhere_but_in_pixels_is_one_line_or_changes_nothing(tmp_path):
    store = small_store(tmp_path / "a.h5", COUNT, SIDE)
    size, dense = store.path.stat().st_size, np.zeros(store.path.stat().st_size, bool)
    with h5py.File(store.path) as file:
        for name, length in (("images", 3 * SIDE**2), ("area", SIDE**2)):
            for start in file[f"offsets/{name}"][:]:
                dense[start : start + length] = True
    places = np.flatnonzero(~dense)
    positions = np.random.default_rng(0).choice(places, 150, replace=False).tolist()
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=read_damaged, args=(store.path, positions, results))
    process.start()
    found = {}
    for _ in range(2 * len(positions)):
        position, result = results.get()
        found[position] = result
    process.join(60)
    assert process.exitcode == 0
    expected = everything(store.path)
    wrong = {p: r[:200] for p, r in found.items() if r not in ("one line", expected)}
    assert wrong == {}
    assert sum(result == "one line" for result in found.values()) > size // 1000


def test_a_store_made_before_seals_existed_is_used(tmp_path):
    def unseal(file: h5py.File) -> None:
        del file.attrs[SEAL], file.attrs[TABLES_SEAL]

    older, newer = changed(tmp_path / "a.h5", unseal), small_store(tmp_path / "b.h5", COUNT, SIDE)
    assert Store(older).digest == newer.digest
    np.testing.assert_array_equal(Store(older).images([3]), newer.images([3]))


def test_a_damaged_store_is_told_by_every_command_in_one_line(forged_copy, capsys):
    dataset = forged_copy("glas")
    folders = ["--root", str(dataset.root.parent), "--stores", dataset.data.stores]
    assert main(["datasets", "prepare", "glas", *folders, "--workers", "1"]) == 0
    (path,) = Path(dataset.data.stores).glob("*.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["licence"] = "CC0"
    capsys.readouterr()
    for action in ("prepare", "show", "verify"):
        assert main(["datasets", action, "glas", *folders, "--workers", "1"]) == 2
        told = capsys.readouterr()
        assert "seal differs" in told.out + told.err and "Traceback" not in told.out + told.err
    assert main(["datasets", "list", *folders]) == 0
    assert "damaged" in capsys.readouterr().out
