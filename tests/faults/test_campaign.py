"""A sample of the campaign in the ordinary tests; `make faults` runs all of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.campaign import BAD, Campaign, judged

SMALL = ["pcam", "idc", "kather2016", "sicapv2", "ocelot", "tnbc", "conic"]
OWN = ["class_folders", "image_masks", "coco_boxes", "csv_table"]


@pytest.mark.slow
def test_a_sample_of_damaged_inputs_is_refused_noted_or_without_effect(
    forged: Callable[[str], Path], tmp_path: Path
) -> None:
    campaign = Campaign(tmp_path, forged, SMALL + OWN, seed=1)
    logging.disable(logging.CRITICAL)
    try:
        cases = [campaign.run(number) for number in range(120)]
    finally:
        logging.disable(logging.NOTSET)
    assert [str(case) for case in cases if case.result in BAD] == []
    results = Counter(case.result for case in cases)
    assert results["refused"] > 30  # the damage is real
    assert results["same"] > 3


def test_the_campaign_sees_tracebacks_hangs_and_silent_changes(
    forged: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.faults import campaign as module

    def endless() -> str:
        while True:
            pass

    monkeypatch.setattr(module, "LIMIT_S", 1)
    assert judged(lambda: str(1 // 0))[0] == "traceback"
    assert judged(endless)[0] == "hang"
    root = forged("idc")
    campaign = Campaign(tmp_path, forged, ["idc"], seed=0)
    campaign._sound["idc"] = ("another digest", 0, set())
    (junk,) = [mutation for mutation in module.FILES if mutation.name == "junk"]
    assert campaign._compare("idc", root, junk, "x.png", headless=False) == "differs"
