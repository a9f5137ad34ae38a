"""Progress of long work, by real processes on terminals of several kinds and without one."""

from __future__ import annotations

import itertools
import re

import pytest

from datamodules.checks.verify import verify
from datamodules.core import progress
from datamodules.prepare import prepare
from tests.datamodules.test_prepare import own_data, write_images
from tests.support.terminals import CONTROL, lines_of, run_python

WORK = """
import logging, sys, time
from datamodules.core import progress
from lightning_app.loggers.log_filters import write_alike

write_alike()
logging.basicConfig(level=logging.INFO, format="%(message)s")
progress.DRAW_S, progress.LINE_S = float(sys.argv[1]), float(sys.argv[2])
before = sys.stderr
try:
    with progress.Work("features of breakhis with pretrain-20260101-120000", "images", 300) as work:
        for number in range(30):
            time.sleep(0.02)
            work.advance(10)
            if number == 15:
                logging.warning("a warning")
                print("µm/px: 0.5")
        raise KeyboardInterrupt
except KeyboardInterrupt:
    assert sys.stderr is before
print("after")
"""
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}


@pytest.mark.parametrize(
    ("columns", "environment"),
    [(160, {}), (80, {"NO_COLOR": "1"}), (40, {}), (40, ASCII), (24, ASCII)],
)
def test_a_terminal_shows_one_line_that_fits_and_is_erased(tmp_path, columns, environment):
    code, written = run_python(WORK, ["0", "60"], tmp_path, columns, **environment)
    assert code == 0, written
    lines = lines_of(written)
    assert max(map(len, lines)) <= columns
    shown = [line for line in lines if "/300 images" in line]
    assert [int(n) for n in re.findall(r"(\d+)/300", written)][-1] == 300
    assert len(shown) >= 30
    if columns >= 40:
        assert any(re.search(r"features.* [·-] \d+/300 images", line) for line in shown)
    assert any("left" in line for line in shown) is (columns >= 80)
    assert any("images/s" in line for line in shown) is (columns >= 80)
    assert ("━" in written) is (columns >= 120)
    # Messages have lines of their own, above what is drawn next.
    micro = "um/px: 0.5" if environment is ASCII else "µm/px: 0.5"
    for message in ("a warning", micro):
        assert message in lines and "/300" in lines[lines.index(message) + 1]
    assert written.endswith("\x1b[2K" + "after\r\n")  # the line was erased
    assert written.isascii() or environment is not ASCII
    assert ("\x1b[3" in written) is ("NO_COLOR" not in environment and columns >= 120)


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, ASCII])
def test_without_a_terminal_a_line_is_logged_whenever_one_is_due(tmp_path, environment):
    code, written = run_python(WORK, ["0", "0.2"], tmp_path, None, **environment)
    assert code == 0, written
    assert not CONTROL.search(written)
    lines = [line for line in lines_of(written) if "/300 images" in line]
    assert 2 <= len(lines) <= 15  # of 30 reports within 0.6 s
    dot = "-" if environment is ASCII else "·"
    name = "features of breakhis with pretrain-20260101-120000"
    pattern = rf"{name} {dot} \d+/300 images ({dot} \d s left )?{dot} \d+ images/s"
    assert all(re.fullmatch(pattern, line) for line in lines), lines
    code, written = run_python(WORK, ["0", "60"], tmp_path, None, **environment)
    assert (code, lines_of(written)) == (0, ["a warning", *lines_of(written)[1:]])
    assert "/300" not in written


def test_a_terminal_that_cannot_move_its_cursor_gets_the_lines_of_a_log(tmp_path):
    code, written = run_python(WORK, ["0", "0.2"], tmp_path, 80, TERM="dumb")
    assert code == 0
    assert not CONTROL.search(written)
    assert 2 <= written.count("/300 images") <= 15


def test_a_line_is_drawn_at_most_twice_a_second_however_often_progress_is_reported(tmp_path):
    code, written = run_python(WORK, [str(progress.DRAW_S), "60"], tmp_path, 80)
    assert code == 0
    drawn = {line for line in lines_of(written) if "/300" in line}
    assert progress.DRAW_S >= 0.5
    assert 2 <= len(drawn) <= 15  # of 30 reports within 0.6 s


def test_the_part_of_a_line_that_fits_keeps_count_and_a_name(monkeypatch):
    parts = ["epoch 2/50", "2312/100000 steps", "9 h left", "loss 0.713", "331 images/s"]
    for width in range(12, 80):
        line = progress.fitted(parts, width)
        assert len(line) <= max(width, len(parts[1]) + 3)
        assert parts[1] in line
    assert progress.fitted(parts, 80) == " · ".join(parts)
    assert progress.fitted(parts, 43) == "epoch 2/50 · 2312/100000 steps · 9 h left"


def test_the_time_left_follows_the_pace_since_the_first_report(monkeypatch):
    clock = itertools.count(1000.0, 60.0)
    now = next(clock)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    work = progress.Work("slide.h5", "images", 10_000)
    work.reach(9_000)  # continued after an interruption
    assert work.parts() == ["slide.h5", "9000/10000 images"]
    now = next(clock)
    work.advance(300)
    assert work.parts()[2:] == ["2 min left", "5.0 images/s"]


def test_preparing_and_verifying_report_every_patch(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    caplog.set_level("INFO", logger="datamodules.core.progress")
    write_images(tmp_path / "own", 70)
    dataset = own_data(tmp_path, tmp_path / "stores")

    def counts(act) -> list[tuple[str, int]]:
        caplog.clear()
        act(dataset, 1)
        found = [re.match(r"(.*?) · (\d+)", message) for message in caplog.messages]
        return [(match[1], int(match[2])) for match in found if match]

    name = dataset.name
    assert counts(prepare) == [(f"preparing {name}", n) for n in range(1, 71)]
    assert counts(prepare) == []  # up to date
    images = [(f"reading the images of {name}", n) for n in range(1, 71)]
    store = [(f"reading the store of {name}", n) for n in (64, 70)]
    assert counts(verify) == images + store
