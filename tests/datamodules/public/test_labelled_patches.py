"""Readers of MHIST, CAMELYON17-WILDS, BRACS, Chaoyang, UniToPatho and CRAG."""

from collections import Counter

import pytest

from datamodules.core.errors import LayoutError
from datamodules.core.notes import collecting
from tests.support.readers import assert_refused

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
