"""A store counts as sound only if every row is what the raw files give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules.checks.findings import Level, Report
from datamodules.checks.verify import verify
from datamodules.core.notes import skipped, warning
from datamodules.core.records import Record
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.store.attributes import SEAL, TABLES_SEAL
from datamodules.store.content import ContentDigest
from datamodules.store.reader import Store
from datamodules.store.tables import write_seals


def listed(report: Report, level: Level) -> str:
    return "\n".join(f"{f.where}: {f.what}" for f in report.findings if f.level is level)


def rewritten(dataset: DatasetReader, change: Callable[[h5py.File], None]) -> Report:
    """Verify a store that was written differently, with digest and seals that fit it."""
    prepare(dataset, workers=1)
    with h5py.File(dataset.store_path, "r+") as file:
        change(file)
        write_seals(file)
    store = Store(dataset.store_path)
    digest = ContentDigest(store.tasks)
    for row, targets in enumerate(store.targets_of(range(len(store)))):
        names = store.split_name(row), store.group_name(row), store.source(row)
        digest.add(*names, store.images([row])[0], targets)
    with h5py.File(dataset.store_path, "r+") as file:
        file.attrs["digest"] = digest.hexdigest()
        write_seals(file)
    return verify(dataset, workers=1)


def flip(name: str, place: tuple[int, ...]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][place] = 1 - min(1, file[name][place])

    return change


@pytest.mark.parametrize(
    ("name", "place", "part"),
    [
        ("images", (3, 0, 0, 0), "pixels: the store holds another than the raw files give"),
        ("targets/nuclei", (3, 0, 0), "target 'nuclei'"),
        ("targets/tissue", (3,), "target 'tissue'"),
        ("boxes/nuclei_detection/labels", (0,), "target 'nuclei_detection'"),
        ("split", (3,), "split"),
        ("xy", (3, 0), "place in its image"),
    ],
)
def test_a_row_that_the_raw_files_do_not_give_is_an_error_that_names_it(
    forged_copy, name, place, part
):
    report = rewritten(forged_copy("pannuke"), flip(name, place))
    errors = listed(report, Level.ERROR)
    assert part in errors
    assert "(row " in errors
    assert "digest differs" not in errors and "seal differs" not in errors


def test_swapped_groups_are_an_error(forged_copy):
    def swap(file: h5py.File) -> None:
        file["groups"][...] = file["groups"][:][::-1]

    assert "group" in listed(rewritten(forged_copy("pannuke"), swap), Level.ERROR)


def test_a_compressed_store_is_compared_too(forged_copy):
    dataset = forged_copy("glas")
    dataset.data.compression = type(dataset.data.compression).lossless
    prepare(dataset, workers=1)
    assert Store(dataset.store_path).compressed
    report = verify(dataset, workers=1)
    assert report.ok, report.findings


def test_a_store_made_before_seals_existed_is_sound_and_says_so(forged_copy):
    dataset = forged_copy("breastpathq")
    prepare(dataset, workers=1)
    with h5py.File(dataset.store_path, "r+") as file:
        del file.attrs[SEAL], file.attrs[TABLES_SEAL]
    report = verify(dataset, workers=1)
    assert report.ok, report.findings
    assert "made before seals existed" in listed(report, Level.INFO)


def test_an_image_that_is_gone_or_new_is_named(forged_copy):
    dataset = forged_copy("class_folders")
    prepare(dataset, workers=1)
    pictures = sorted(p for p in dataset.root.rglob("*.*") if p.suffix in (".png", ".jpg"))
    new = pictures[0].with_name(f"new{pictures[0].suffix}")
    pictures[0].rename(new)
    report = verify(dataset, workers=1)
    assert report.ok  # the files changed, which is said too
    warnings = listed(report, Level.WARNING)
    assert f"{new.name}: is not in the store" in warnings
    assert f"{pictures[0].name}: is in the store, but not among the raw files" in warnings


def noting(dataset: DatasetReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a reader note two oddities, one of them in a lazy target."""
    records = dataset.records

    def noted(root: Path) -> Iterator[Record]:
        for number in range(5):
            skipped(f"._{number}.png", "hidden file")
        for record in records(root):
            yield record
            warning(record.source, "no object")

    monkeypatch.setattr(dataset, "records", noted)


def test_what_a_reader_skips_is_a_warning_with_count_and_examples(forged_copy, monkeypatch):
    dataset = forged_copy("breastpathq")
    noting(dataset, monkeypatch)
    prepare(dataset, workers=1)
    report = verify(dataset, workers=1)
    assert report.ok
    warnings = listed(report, Level.WARNING)
    assert "._0.png, ._1.png, ._2.png and 2 more: skipped: hidden file" in warnings
    assert f"and {report.records - 3} more: no object" in warnings
    dataset.root.rename(dataset.root.with_name("gone"))
    assert "skipped: hidden file (when it was prepared)" in listed(
        verify(dataset, 1), Level.WARNING
    )


def test_real_rows_are_compared_with_real_files(official):
    dataset = official("glas")
    prepare(dataset, workers=1)
    report = verify(dataset, workers=1)
    assert report.ok, report.findings
    assert report.records and np.isfinite(report.patches)
