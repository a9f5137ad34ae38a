"""Overlap between training and probing data, and the licence terms of trained weights."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datamodules.core.errors import LeakageError
from datamodules.reader import DatasetReader

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A dataset listed in an encoder's facts as training data; it may be absent here."""

    name: str  # in the run that trained the encoder
    sources: tuple[str, ...]
    folder: str  # below `data.root`


Card = DatasetReader | Trained


def trained_on(facts: Mapping[str, Any]) -> list[Trained]:
    """Return the training data listed in the facts of an exported encoder."""
    return [
        Trained(name, tuple(entry.get("sources", ())), entry.get("folder", ""))
        for name, entry in facts.get("datasets", {}).items()
        if entry.get("role") == "train"
    ]


def overlap(train: Sequence[Card], unseen: Sequence[DatasetReader]) -> list[str]:
    """Return one sentence for each pair of datasets that share a source or a folder.

    Two datasets made from the same slides or the same cohort are not independent: a probe on one
    overrates an encoder that was trained on the other.
    """
    return [
        f"{probe.name} (unseen) and {trained.name} (training) share {shared}"
        for probe in unseen
        for trained in train
        if (shared := _shared(probe, trained))
    ]


def check_overlap(train: Sequence[Card], unseen: Sequence[DatasetReader], allow: bool) -> None:
    """Raise a LeakageError for probes that share a source with training; log it where allowed."""
    shared = overlap(train, unseen)
    if shared and not allow:
        raise LeakageError(
            f"{'; '.join(shared)}. Such data are not unseen: remove one of each pair, or set "
            "probe.allow_overlap=true; the report then states it"
        )
    for sentence in shared:
        log.warning("not unseen: %s; allowed by probe.allow_overlap=true", sentence)


def licence_line(datasets: Sequence[DatasetReader]) -> str:
    """State in one line whether weights trained on these datasets may be used commercially."""
    closed = [dataset.name for dataset in datasets if dataset.commercial is False]
    unclear = [dataset.name for dataset in datasets if dataset.commercial is None]
    lines = [f"weights trained on non-commercial data: {', '.join(closed)}"] if closed else []
    if unclear:
        lines.append(f"terms unclear, ask the publishers: {', '.join(unclear)}")
    return "; ".join(lines) or "all training data allow commercial use"


def _shared(probe: DatasetReader, trained: Card) -> str:
    """What two datasets share; own data without sources are only compared by their folder."""
    if isinstance(trained, Trained):
        if probe.placed == trained.folder:
            return f"the folder {probe.placed}"
    elif probe.root.resolve() == trained.root.resolve():
        return f"the folder {probe.root}"
    known = {source.casefold() for source in trained.sources}
    common = [source for source in probe.sources if source.casefold() in known]
    return f"the source {', '.join(common)}" if common else ""
