"""Every study that looks at the report half is counted once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datamodules.core.errors import ProbeError
from lightning_app.run.report_looks import LOOKS, record_look


def test_a_look_counts_once_for_each_study_and_per_data(tmp_path: Path) -> None:
    encoder: Any = SimpleNamespace(name="ours", identity="1")
    other: Any = SimpleNamespace(name="ours", identity="2")
    idc: Any = {"idc": SimpleNamespace(store=SimpleNamespace(digest="a"))}
    glas: Any = {"glas": SimpleNamespace(store=SimpleNamespace(digest="b"))}
    assert len(record_look(tmp_path, tmp_path / "run", [encoder], idc)) == 1
    assert len(record_look(tmp_path, tmp_path / "run", [encoder], idc)) == 1  # continued
    assert len(record_look(tmp_path, tmp_path / "run", [other], idc)) == 2
    assert len(record_look(tmp_path, tmp_path / "other", [encoder], glas)) == 1
    looks = record_look(tmp_path, tmp_path / "third", [encoder], {**idc, **glas})
    assert [look["encoders"] for look in looks] == [{"ours": n} for n in "1211"]
    assert len((tmp_path / LOOKS).read_text().splitlines()) == 4
    (tmp_path / LOOKS).write_text('{"study": ')
    with pytest.raises(ProbeError, match=f"{LOOKS}: not the record of looks"):
        record_look(tmp_path, tmp_path / "fourth", [encoder], idc)
    assert (tmp_path / LOOKS).read_text() == '{"study": '
