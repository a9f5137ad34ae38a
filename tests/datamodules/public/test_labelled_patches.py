"""Readers of MHIST, CAMELYON17-WILDS, BRACS, Chaoyang, UniToPatho and CRAG."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest

from datamodules.checks.leakage import overlap
from datamodules.config import DatasetConfig
from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.notes import collecting
from datamodules.formats.images import read_ids, write_image
from evaluation.probe.robustness import centres_of
from tests.support.readers import assert_refused, dataset, prepared

# ---- MHIST --------------------------------------------------------------------------------


def test_mhist_counts_labels_that_their_votes_contradict(forged_copy):
    module = forged_copy("mhist")
    table = module.root / "annotations.csv"
    lines = table.read_text().splitlines()
    name, label, _, part = lines[1].split(",")
    lines[1] = f"{name},{label},{7 if label == 'HP' else 0},{part}"
    table.write_text("\n".join(lines) + "\n")
    with collecting() as notes:
        records = list(module.records(module.root))
    assert notes.counts == {("warning", "label that its votes contradict"): 1}
    assert records[0].targets["polyp"] == ("HP", "SSA").index(label)
    assert set(Counter(record.split for record in records)) == {"train", "test"}


@pytest.mark.parametrize(
    ("value", "other", "words"),
    [("HP", "hyperplastic", ("hyperplastic", "HP or SSA")), ("train", "val", ("val", "train or"))],
)
def test_mhist_refuses_an_unknown_label_or_part(forged_copy, value, other, words):
    module = forged_copy("mhist")
    table = module.root / "annotations.csv"
    table.write_text(table.read_text().replace(f",{value}", f",{other}", 1))
    assert_refused(module, LayoutError, "annotations.csv", *words)


# ---- CAMELYON17-WILDS ---------------------------------------------------------------------


def test_camelyon17_holds_out_two_hospitals_which_its_groups_name(forged, tmp_path):
    module = dataset("camelyon17", forged("camelyon17"), tmp_path)
    records = list(module.records(module.root))
    centres = {split: set() for split in ("train", "val", "test")}
    for record in records:
        centres[record.split].add(record.group[7])
    assert centres == {"train": {"0", "3", "4"}, "val": {"1"}, "test": {"2"}}
    module.config = DatasetConfig(folder=str(module.root), centre="center (.)")
    store = prepared(module)
    expected = [int(store.group_name(row)[7]) for row in range(len(store))]
    assert centres_of(module).tolist() == expected
    labels = Counter(zip(expected, store.target("tumor").tolist(), strict=True))
    assert len(labels) == 10  # both classes in each hospital


def test_camelyon17_names_the_file_of_a_row_that_is_missing(forged_copy):
    module = forged_copy("camelyon17")
    path = sorted(module.root.rglob("*.png"))[3]
    path.unlink()
    assert_refused(module, DatasetNotFoundError, path.name, "allow_missing=true")
    partial = forged_copy("camelyon17", allow_missing=True)
    path.unlink()
    with collecting() as notes:
        assert len(list(partial.read())) == 19
    assert notes.counts == {("skipped", "listed image does not exist"): 1}


# ---- BRACS --------------------------------------------------------------------------------


def test_bracs_groups_slides_by_patient_with_its_table_and_by_slide_without(forged_copy):
    module = forged_copy("bracs")
    slides = {record.source.split("/")[-1].rsplit("_", 2)[0] for record in module.read()}
    assert (len(slides), len({record.group for record in module.read()})) == (4, 3)
    (module.root / "BRACS.xlsx").unlink()
    with collecting() as notes:
        assert {record.group for record in module.read()} == slides
    assert notes.total("warning") == 1


def test_bracs_refuses_a_region_in_the_folder_of_another_class(forged_copy):
    module = forged_copy("bracs")
    path = next(module.root.rglob("*_FEA_*.png"))
    shutil.copy(path, path.parents[1] / "4_ADH" / path.name)
    assert_refused(module, LayoutError, path.name, "named class FEA", "4_ADH")


# ---- Chaoyang -----------------------------------------------------------------------------


def test_chaoyang_groups_patches_by_slide_and_refuses_an_unknown_class(forged_copy):
    module = forged_copy("chaoyang")
    records = list(module.records(module.root))
    assert Counter(record.group for record in records) == dict.fromkeys(
        ("535940", "535941", "535942"), 4
    )
    table = module.root / "train.json"
    entries = json.loads(table.read_text())
    entries[2]["label"] = 4
    table.write_text(json.dumps(entries))
    assert_refused(module, LayoutError, "train.json: [2].label", "expected 0 to 3")
    entries[2]["name"] = "../test/x.JPG"
    table.write_text(json.dumps(entries))
    assert_refused(module, LayoutError, "train.json: [2].name", "leaves the dataset's folder")


# ---- UniToPatho ---------------------------------------------------------------------------


def test_unitopatho_reads_names_with_commas_and_refuses_a_label_of_another_name(forged_copy):
    module = forged_copy("unitopatho")
    records = list(module.records(module.root))
    assert all("(" in record.source and "," in record.source for record in records)
    assert Counter(record.split for record in records) == {"train": 6, "test": 6}
    assert "TVA.HG CASO 5 - test" in {record.group for record in records}
    table = module.root / "800/train.csv"
    table.write_text(table.read_text().replace(",1,NORM", ",2,NORM", 1))
    assert_refused(module, LayoutError, "train.csv, line 3", "'NORM', but 2 is TA.HG")


# ---- CRAG ---------------------------------------------------------------------------------


def test_crag_reads_both_spellings_of_its_folders_and_masks_of_colours(forged_copy):
    module = forged_copy("crag")
    before = [record.targets["glands"]() for record in module.records(module.root)]
    assert Counter(r.split for r in module.records(module.root)) == {"train": 3, "test": 1}
    (module.root / "CRAG/valid").rename(module.root / "CRAG/test")
    for part in ("train", "test"):
        folder = module.root / "CRAG" / part / "Annotation"
        for path in folder.iterdir():
            ids = read_ids(path).astype(np.uint8)
            write_image(path, np.stack([0 * ids, ids, 0 * ids], axis=-1))
        folder.rename(folder.with_name("Annotations"))
    after = [record.targets["glands"]() for record in module.records(module.root)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_crag_masks_without_image_are_left_out_where_that_is_allowed(forged_copy):
    module = forged_copy("crag")
    path = module.root / "CRAG/valid/Images/test_3.png"
    shutil.copy(path, path.with_name("test_9.png"))
    shutil.copy(path, path.parents[1] / "Annotation/test_41.png")
    assert_refused(module, DatasetNotFoundError, "test_41.png", "allow_missing=true")


# ---- shared sources -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("consep", "lizard", True), ("crag", "lizard", True), ("glas", "consep", True),
        ("pannuke", "lizard", True), ("conic", "crag", True), ("crchisto", "glas", True),
        ("monuseg", "monusac", True), ("pcam", "camelyon17", True), ("bracs", "bach", False),
        ("nuinsseg", "lizard", False), ("mhist", "unitopatho", False),
    ],
)  # fmt: skip
def test_datasets_of_the_same_slides_or_hospital_are_not_unseen(tmp_path, one, other, shared):
    pair = [dataset(name, tmp_path / name, tmp_path) for name in (one, other)]
    assert bool(overlap(pair[:1], pair[1:])) == shared
