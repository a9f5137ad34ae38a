from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import PIL.Image
import pytest

from datamodules.checks.findings import MAX_LISTED, Level, Report, is_verified, stamp_of
from datamodules.checks.verify import verify
from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.records import SPLITS
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build
from datamodules.store.class_balance import class_balance
from datamodules.store.reader import Store
from datamodules.synthetic.forge import forge


def dataset_in(folder: Path, name: str, images: int = 12) -> DatasetReader:
    """A forged dataset, prepared."""
    data = DataConfig(root=str(folder / "data"), stores=str(folder / "stores"))
    dataset = build(name, DatasetConfig(), data)
    forge(dataset, 0, images)
    prepare(dataset, workers=1)
    return dataset


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forged")
    for name in ("pannuke", "glas", "breastpathq", "class_folders"):
        dataset_in(folder, name)
    return folder


@pytest.fixture
def copy(forged: Path, tmp_path: Path) -> Callable[[str], DatasetReader]:
    """A dataset that a test may damage."""

    def copied(name: str) -> DatasetReader:
        shutil.copytree(forged / "data" / name, tmp_path / "data" / name)
        (tmp_path / "stores").mkdir()
        for path in (forged / "stores").glob(f"{name}-*.h5"):
            shutil.copy2(path, tmp_path / "stores")
        return dataset_in(tmp_path, name)

    return copied


def damage(dataset: DatasetReader, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(dataset.store_path, "r+") as file:
        change(file)


def listed(report: Report, level: Level) -> str:
    return "\n".join(f"{f.where}: {f.what}" for f in report.findings if f.level is level)


@pytest.mark.parametrize("name", ["pannuke", "breastpathq", "class_folders"])
def test_an_untouched_dataset_is_sound(forged, name):
    dataset = dataset_in(forged, name)
    report = verify(dataset, workers=1)
    assert report.ok, report.findings
    store = Store(dataset.store_path)
    assert report.patches == len(store)
    with h5py.File(store.path) as file:
        assert report.records == len(file["sources"])
    assert "synthetic" in listed(report, Level.INFO)


def test_a_store_counts_as_verified_until_it_is_rewritten_or_changed(copy):
    dataset = copy("breastpathq")
    stamp_of(dataset.store_path).unlink(missing_ok=True)  # another test may have left one
    assert not is_verified(dataset)
    verify(dataset, workers=1)
    assert is_verified(dataset)
    dataset.store_path.rename(dataset.store_path.with_name("older.h5"))
    assert not is_verified(dataset)
    prepare(dataset, workers=1)
    assert not is_verified(dataset)
    verify(dataset, workers=1)
    damage(dataset, lambda file: file["images"].write_direct(file["images"][:] ^ 1))
    assert not is_verified(dataset)
    assert not verify(dataset, workers=1).ok
    assert not is_verified(dataset)
    assert not stamp_of(dataset.store_path).exists()


def test_a_published_overlap_of_patients_is_a_warning_with_its_reason(forged):
    dataset = dataset_in(forged, "glas")
    report = verify(dataset, workers=1)
    assert report.ok
    warning = listed(report, Level.WARNING)
    assert "group (patient) lies in train and in test: patient" in warning
    assert dataset.split_overlap in warning


def test_an_overlap_that_the_card_does_not_explain_is_an_error(copy, monkeypatch):
    dataset = copy("glas")
    monkeypatch.setattr(type(dataset), "split_overlap", "")
    report = verify(dataset, workers=1)
    assert not report.ok
    assert "the split leaks" in listed(report, Level.ERROR)


def test_one_changed_pixel_is_found(copy):
    dataset = copy("pannuke")

    def change(file: h5py.File) -> None:
        pixel = file["images"][3, 5, 7]
        file["images"][3, 5, 7] = pixel ^ 1

    damage(dataset, change)
    assert "digest differs" in listed(verify(dataset, workers=1), Level.ERROR)


@pytest.mark.parametrize("name", ["targets/nuclei", "boxes/nuclei_detection/xyxy", "split"])
def test_one_changed_target_or_split_is_found(copy, name):
    dataset = copy("pannuke")

    def change(file: h5py.File) -> None:
        assert name in file, list(file["targets"]) + list(file["boxes"])
        first = (0,) * file[name].ndim
        file[name][first] = 1 - min(1, file[name][first])

    damage(dataset, change)
    assert "digest differs" in listed(verify(dataset, workers=1), Level.ERROR)


def test_a_target_out_of_range_names_its_source_and_row(copy):
    dataset = copy("breastpathq")
    damage(dataset, lambda file: file["targets/cellularity"].__setitem__(4, 1.5))
    errors = listed(verify(dataset, workers=1), Level.ERROR)
    assert "(row 4)" in errors
    assert ".tif" in errors
    assert "value 1.5, expected 0" in errors


def test_a_mask_class_that_does_not_exist_names_its_source_and_row(copy):
    dataset = copy("pannuke")
    damage(dataset, lambda file: file["targets/nuclei"].__setitem__((2, 0, 0), 77))
    errors = listed(verify(dataset, workers=1), Level.ERROR)
    assert "(row 2)" in errors
    assert "class index 77" in errors


@pytest.mark.parametrize(
    ("name", "value"), [("split", 9), ("group", 10_000), ("group", -1), ("source", 10_000)]
)
def test_inconsistent_tables_are_an_error_not_a_crash(copy, name, value):
    dataset = copy("class_folders")

    def change(file: h5py.File) -> None:
        values = file[name][:].astype(np.int32)
        values[0] = value
        del file[name]
        file[name] = values

    damage(dataset, change)
    assert "contradict each other" in listed(verify(dataset, workers=1), Level.ERROR)


def test_decreasing_box_offsets_are_an_error_not_a_crash(copy):
    dataset = copy("pannuke")
    damage(dataset, lambda file: file["boxes/nuclei_detection/offsets"].__setitem__(1, 10_000))
    assert "contradict each other" in listed(verify(dataset, workers=1), Level.ERROR)


def test_a_truncated_store_is_an_error_not_a_crash(copy):
    dataset = copy("pannuke")
    os.truncate(dataset.store_path, dataset.store_path.stat().st_size // 2)
    errors = listed(verify(dataset, workers=1), Level.ERROR)
    assert dataset.store_path.name in errors
    assert "datasets prepare" in errors


def test_empty_images_are_listed(copy):
    dataset = copy("class_folders")
    picture = next(p for p in sorted(dataset.root.rglob("*.*")) if p.suffix in (".png", ".jpg"))
    with PIL.Image.open(picture) as image:
        size = image.size
    PIL.Image.new("RGB", size, (240, 238, 241)).save(picture)
    prepare(dataset, workers=1)
    report = verify(dataset, workers=1)
    assert report.ok
    warnings = listed(report, Level.WARNING)
    assert picture.name in warnings
    assert "empty image: all of it is RGB [240, 238, 241]" in warnings


def test_all_broken_raw_images_are_listed(copy):
    dataset = copy("class_folders")
    pictures = [p for p in sorted(dataset.root.rglob("*.*")) if p.suffix in (".png", ".jpg")]
    for picture in pictures[1:3]:
        picture.write_bytes(picture.read_bytes()[:200])
    report = verify(dataset, workers=1)
    assert not report.ok
    for picture in pictures[1:3]:
        assert picture.name in listed(report, Level.ERROR)
    assert report.records == 12


def test_raw_files_that_changed_after_the_store_was_written_are_a_warning(copy):
    dataset = copy("class_folders")
    picture = next(p for p in sorted(dataset.root.rglob("*.*")) if p.suffix in (".png", ".jpg"))
    os.utime(picture, (1, 1))
    report = verify(dataset, workers=1)
    assert report.ok
    assert "changed since it was written" in listed(report, Level.WARNING)


def test_a_missing_file_of_the_layout_is_an_error_that_names_it(copy):
    dataset = copy("glas")
    next(dataset.root.rglob("Grade.csv")).unlink()
    assert "Grade.csv" in listed(verify(dataset, workers=1), Level.ERROR)


def test_a_store_can_be_verified_without_raw_files(copy):
    dataset = copy("pannuke")
    shutil.rmtree(dataset.root)
    report = verify(dataset, workers=1)
    assert report.ok, report.findings
    assert report.records == 0
    assert report.patches == len(Store(dataset.store_path))
    assert f"no folder {dataset.root}" in listed(report, Level.INFO)


def test_raw_files_can_be_verified_before_preparation(copy):
    dataset = copy("pannuke")
    dataset.store_path.unlink()
    report = verify(dataset, workers=1)
    assert report.ok
    assert report.records == 12
    assert "not prepared yet" in listed(report, Level.INFO)


def test_several_processes_report_the_same_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.store.parallel.ALONE_S", 0.0)  # they start at once
    dataset = dataset_in(tmp_path, "class_folders", images=20)
    pictures = [p for p in sorted(dataset.root.rglob("*.*")) if p.suffix in (".png", ".jpg")]
    pictures[15].write_bytes(b"no image")
    assert verify(dataset, workers=2).findings == verify(dataset, workers=1).findings


def test_many_findings_of_one_kind_are_counted_and_the_first_listed():
    report = Report("data")
    report.add(Level.INFO, "fact", "store", "a fact")
    for row in range(MAX_LISTED + 7):
        report.add(Level.ERROR, "out of range", f"row {row}", "value 2")
    findings = report.findings
    assert f"{MAX_LISTED + 7} errors" in report.summary
    assert len(findings) == MAX_LISTED + 2
    assert (findings[MAX_LISTED].where, findings[MAX_LISTED].what) == ("7 more", "out of range")
    assert findings[-1].level is Level.INFO


def test_the_class_balance_counts_patches_objects_and_pixels(forged):
    store = Store(dataset_in(forged, "pannuke").store_path)
    balance = class_balance(store)
    rows = np.arange(len(store))
    masks = store.masks("nuclei", rows)
    assert sum(balance["nuclei"].values()) == masks.size
    assert balance["nuclei"]["neoplastic"] == int((masks == 1).sum())
    boxes = [store.boxes("nuclei_detection", row) for row in rows]
    assert sum(balance["nuclei_detection"].values()) == sum(len(b) for b in boxes)
    assert sum(balance["tissue"].values()) == len(store)


def test_the_balance_of_a_regression_task_is_a_histogram(forged):
    store = Store(dataset_in(forged, "breastpathq").store_path)
    counts = class_balance(store)["cellularity"]
    assert next(iter(counts)) == "0 to 0.1"
    assert sum(counts.values()) == len(store)
    first = np.histogram(store.target("cellularity"), bins=10, range=(0, 1))[0][0]
    assert counts["0 to 0.1"] == first


@pytest.mark.parametrize("name", ["nct_crc", "monuseg", "idc"])
def test_real_data_are_sound(real_samples, tmp_path, name):
    data = DataConfig(root=str(real_samples / "official"), stores=str(tmp_path))
    dataset = build(name, DatasetConfig(), data)
    prepare(dataset, workers=1)
    report = verify(dataset, workers=1)
    assert report.ok, report.findings
    assert report.records > 0
    assert set(np.unique(Store(dataset.store_path).split)) <= set(range(len(SPLITS)))
