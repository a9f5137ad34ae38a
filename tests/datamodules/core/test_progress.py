"""Progress of long steps: shown on a terminal, and nowhere else."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest
from rich.console import Console

from datamodules.checks.verify import verify
from datamodules.core.progress import progress_display, transfers
from datamodules.prepare import prepare
from tests.datamodules.test_prepare import own_data, write_images


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def test_preparing_and_verifying_report_every_record_and_patch(tmp_path):
    write_images(tmp_path / "own", 70)
    calls = []
    dataset = own_data(tmp_path, tmp_path / "stores")
    prepare(dataset, 2, lambda *step: calls.append(step))
    assert calls == [("writing", 1, 1)] * 70
    calls.clear()
    prepare(dataset, 2, lambda *step: calls.append(step))
    assert calls == []
    verify(dataset, 1, lambda *step: calls.append(step))
    read = [("reading the store", 0, 64), ("reading the store", 0, 6)]
    assert calls == [("reading the images", 1, 1)] * 70 + read


def test_a_terminal_shows_progress_and_is_cleared_at_the_end():
    console = terminal()
    with progress_display("glas", console) as progress:
        for _ in range(20):
            progress("writing", 1, 7)
        time.sleep(0.11)  # it draws ten times a second
        progress("writing", 1, 7)
        assert "glas: writing: 21 records, 147 patches" in console.file.getvalue()
        time.sleep(0.11)
        progress("reading the store", 0, 64)
        assert "glas: reading the store: 64 patches" in console.file.getvalue()
    assert console.file.getvalue().endswith("\x1b[2K")  # the lines were erased


def test_nothing_is_shown_for_a_dataset_that_is_up_to_date():
    console = terminal()
    with progress_display("glas", console):
        pass
    assert console.file.getvalue() == ""


def test_without_a_terminal_nothing_is_shown():
    console = Console(file=io.StringIO())
    with progress_display("glas", console) as progress:
        progress("writing", 1, 1)
    with transfers(console) as bars:
        bars.update(bars.add_task("archive.zip", total=10), completed=5)
    assert console.file.getvalue() == ""


def test_a_display_survives_an_error_and_leaves_the_error_stream_as_it_was():
    before = sys.stderr
    with pytest.raises(KeyboardInterrupt), progress_display("glas", terminal()) as progress:
        progress("writing", 1, 1)
        assert sys.stderr is not before
        raise KeyboardInterrupt
    assert sys.stderr is before


def test_messages_appear_above_what_is_drawn():
    console = terminal()
    handler = logging.StreamHandler(sys.stderr)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with progress_display("glas", console) as progress:
            progress("writing", 1, 1)
            logging.getLogger("datamodules.prepare").warning("something to know")
        assert handler.stream is sys.stderr
    finally:
        root.removeHandler(handler)
    shown = console.file.getvalue()
    # Erased first, then the message on its own line, then drawn again.
    assert "\x1b[2Ksomething to know\n" in shown
    assert "glas: writing" in shown.split("something to know\n")[1]
