"""A sample of the campaign in the ordinary tests, and proof that it sees what it looks for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.core.errors import LayoutError
from datamodules.core.records import Boxes, Record
from datamodules.own_data.class_folders import ClassFolders
from datamodules.registry import READERS
from tests.faults import campaign as module
from tests.faults.campaign import BAD, Campaign, Case, judged
from tests.faults.damage import FILES, KEEPERS, PIXELS
from tests.faults.difference import Difference, Item
from tests.faults.lawful import LAWFUL
from tests.faults.other_inputs import OTHERS

Forged = Callable[[str], Path]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Warnings of damaged files are expected here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def reader_for(suffixes: tuple[str, ...], number: int) -> str:
    """A reader of small images whose dataset keeps a file of one of these endings."""
    if not suffixes or set(suffixes) & set(PIXELS):
        return ("class_folders", "tnbc", "ocelot", "kather2016", "idc", "glas")[number % 6]
    names = [name for suffix in suffixes for name in KEEPERS.get(suffix, ())]
    return names[number % len(names)]


def test_a_sample_of_every_reader_and_mutation_is_refused_noted_or_harmless(
    forged: Forged, tmp_path: Path
) -> None:
    campaign = Campaign(tmp_path, forged, list(READERS), seed=1)
    cases = [campaign.run(5 * number) for number in range(4 * len(OTHERS))]
    cases += [campaign.run(number, reader) for number, reader in enumerate(READERS)]
    seen = {case.mutation for case in cases}
    for number, mutation in enumerate(FILES):
        if mutation.name not in seen:
            reader = reader_for(mutation.suffixes, number)
            cases.append(campaign.run(number, reader, mutation.name))
    assert [str(case) for case in cases if case.result in BAD] == []
    assert {case.subject for case in cases} == {*READERS, *OTHERS}
    assert {case.mutation for case in cases} >= {mutation.name for mutation in FILES}
    results = Counter(case.result for case in cases)
    assert results["refused"] > len(cases) / 3  # the damage is real
    assert min(results[name] for name in ("same", "noted", "lawful")) > 0


class Marked(ClassFolders):
    """A reader that does something wrong as soon as a file was renamed."""

    def records(self, root: Path) -> Iterator[Record]:
        for number, record in enumerate(super().records(root)):
            wrong = next(root.rglob("*.bak"), None) is not None
            yield self.mistake(record) if wrong and number < 2 else record

    def mistake(self, record: Record) -> Record:
        raise NotImplementedError


class Crashing(Marked):
    def mistake(self, record: Record) -> Record:
        return {}[record.source]


class Endless(Marked):
    def mistake(self, record: Record) -> Record:
        while True:
            pass


class Leaving(Marked):
    def mistake(self, record: Record) -> Record:
        (Path(self.data.stores) / ".table.partial").write_bytes(b"half")
        raise LayoutError("refused, with half a file left")


class Relabelling(Marked):
    def mistake(self, record: Record) -> Record:
        return replace(record, targets={"class": 1 - record.targets["class"]})


class Moving(Marked):
    def mistake(self, record: Record) -> Record:
        return replace(record, split="test")


class Sound(Marked):
    def mistake(self, record: Record) -> Record:
        return record


@pytest.mark.parametrize(
    ("reader", "result", "reason"),
    [
        (Crashing, "traceback", "KeyError"),
        (Endless, "hang", "over 1 s"),
        (Leaving, "partial", "half a file left"),
        (Relabelling, "differs", "class 2"),
        (Moving, "differs", "split 2"),
        (Sound, "noted", ""),
    ],
)
def test_the_campaign_sees_each_fault_of_a_bad_reader(
    forged: Forged,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reader: type[Marked],
    result: str,
    reason: str,
) -> None:
    monkeypatch.setitem(READERS, "bad", f"{__name__}:{reader.__name__}")
    monkeypatch.setattr(module, "LIMIT_S", 1 if reader is Endless else 30)
    campaign = Campaign(tmp_path, lambda name: forged("class_folders"), ["bad"], seed=0)
    case = campaign.run(1, "bad", "rename ending")
    assert case.result == result, str(case)
    assert reason in case.reason


def test_a_case_is_made_from_its_number_and_the_seed_alone(forged: Forged, tmp_path: Path) -> None:
    def run(folder: str, numbers: list[int]) -> list[Case]:
        campaign = Campaign(tmp_path / folder, forged, ["idc", "ocelot"], seed=2)
        return [campaign.run(number) for number in numbers]

    plain = [(case.mutation, case.file, case.result) for case in run("a", [3, 4, 6])]
    again = [(case.mutation, case.file, case.result) for case in run("b", [6, 4, 3])][::-1]
    assert plain == again


def test_waiting_without_work_is_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(module, "LIMIT_S", 0.1)
    assert judged(lambda: ("same", (tmp_path / "pipe").read_text()))[0] == "hang"


BEFORE = {
    name: Item(
        "train", "p1", None, (9, 9), name.encode(), {"class": n, "boxes": Boxes(xyxy, kinds)}
    )
    for n, (name, xyxy, kinds) in enumerate(
        [
            ("a.png", np.array([[1, 1, 4, 4]], np.float32), np.array([0])),
            ("b.png", np.array([[2, 2, 5, 5]], np.float32), np.array([1])),
        ]
    )
}


@pytest.mark.parametrize("row", LAWFUL, ids=lambda row: row.check.__name__)
def test_no_declaration_covers_another_image_label_or_split(tmp_path: Path, row) -> None:
    (tmp_path / "a.png").write_text("nothing that matters")
    other = BEFORE["b.png"]
    for wrong in (
        {"targets": {**other.targets, "class": 7}},
        {"targets": {**other.targets, "boxes": Boxes()}, "split": "val"},
        {"split": "test"},
        {"image": b"another", "group": "p2"},
    ):
        after = {**BEFORE, "b.png": replace(other, **wrong)}
        difference = Difference(tmp_path, "a.png", BEFORE, after)
        if row.check.__name__ == "one_split" and set(wrong) == {"split"}:
            continue  # what it declares
        if row.check.__name__ != "renamed" or difference.changed:
            assert not row.check(difference), wrong
    assert not row.check(Difference(tmp_path, "a.png", BEFORE, {}))


def test_every_declaration_names_known_mutations_and_readers() -> None:
    known = {mutation.name for mutation in FILES}
    for row in LAWFUL:
        assert set(row.mutations) <= known
        assert set(row.readers) <= set(READERS)
        assert row.reason
