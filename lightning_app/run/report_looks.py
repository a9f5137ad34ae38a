"""The record of all studies that looked at the report half of unseen datasets."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.core.atomic import write_text
from datamodules.core.errors import ProbeError
from datamodules.reader import DatasetReader
from models.inference.frozen_encoder import FrozenEncoder

log = logging.getLogger(__name__)

LOOKS = "report_looks.jsonl"


def record_look(
    stores: Path,
    study: Path,
    encoders: Sequence[FrozenEncoder],
    unseen: Mapping[str, DatasetReader],
) -> list[dict[str, Any]]:
    """Add a study to the record beside the stores, before it computes a score.

    A study that is interrupted and continued, with the same encoders and data, counts once.

    Args:
        stores: folder of the stores, which all studies on them share.
        study: folder of the study.
        encoders: all that are probed.
        unseen: the datasets, prepared.

    Returns:
        All looks at any of these datasets so far, the oldest first, this one among them.

    Raises:
        ProbeError: the record is damaged.
    """
    path = stores / LOOKS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    try:
        looks = [json.loads(line) for line in lines]
    except ValueError as error:
        raise ProbeError(
            f"{path}: not the record of looks at the report half ({error}); restore it, or remove "
            "it if no result was ever chosen by that half"
        ) from error
    look = {
        "study": str(study.resolve()),
        "encoders": {encoder.name: encoder.identity for encoder in encoders},
        "datasets": {name: dataset.store.digest for name, dataset in unseen.items()},
    }
    if not any({**earlier, "time": ""} == {**look, "time": ""} for earlier in looks):
        looks.append({"time": time.strftime("%Y-%m-%d %H:%M:%S"), **look})
        write_text(path, "".join(f"{json.dumps(entry)}\n" for entry in looks))
    digests = {dataset.store.digest for dataset in unseen.values()}
    shared = [entry for entry in looks if digests & set(entry["datasets"].values())]
    if len(shared) > 1:
        log.warning(
            "%d studies have looked at the report half of these datasets (%s); choose nothing by "
            "it: probe.role=develop is for that",
            *(len(shared), path),
        )
    return shared
