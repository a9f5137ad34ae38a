"""Counted reasons: what is passed over or odd while a dataset is read."""

from __future__ import annotations

import logging

import pytest

from datamodules.core.notes import Notes, collecting, skipped, warning


def test_reasons_are_counted_with_their_first_three_sources() -> None:
    with collecting() as notes:
        for number in range(5):
            skipped(f"images/._{number}.png", "hidden file")
        warning("a.xml", "no resolution, 0.25 µm/px assumed")
    assert notes.line() == (
        "5 skipped (hidden file: 5), 1 warnings (no resolution, 0.25 µm/px assumed: 1)"
    )
    assert notes.examples["skipped", "hidden file"] == [f"images/._{n}.png" for n in range(3)]


def test_notes_of_several_processes_are_merged_and_survive_json() -> None:
    parts = []
    for number in range(2):
        with collecting() as notes:
            skipped(f"{number}.png", "hidden file")
        parts.append(Notes.from_json(notes.to_json()))
    parts[0].merge(parts[1])
    assert parts[0].counts == {("skipped", "hidden file"): 2}
    assert parts[0].examples == {("skipped", "hidden file"): ["0.png", "1.png"]}


def test_blocks_do_not_see_each_other() -> None:
    with collecting() as outer, collecting() as inner:
        warning("a", "odd")
    assert (outer.total("warning"), inner.total("warning")) == (0, 1)


def test_outside_a_block_a_note_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warning("a.png", "odd")
    assert "a.png: odd (warning)" in caplog.text
